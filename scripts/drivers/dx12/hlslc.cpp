// Compiles HLSL files like wgpu-hal 30, with DXC or FXC, on Linux and Windows:
//
//   hlslc dxc|fxc LIBRARY MODEL SECONDS LIST RESULTS
//
// LIBRARY is libdxcompiler.so, dxcompiler.dll or d3dcompiler_47.dll; MODEL is 5_1, 6_0, …; LIST has one path per line. A
// file's first line names its entry point (`// entry main`), and `// 16-bit` after it adds -enable-16bit-types. RESULTS
// gets one line per file: path, milliseconds, bytes of the shader, and the error, separated by tabs. A file that takes
// more than SECONDS ends the program with status 3 after its line.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
typedef int32_t HRESULT;
struct GUID {
  uint32_t Data1;
  uint16_t Data2, Data3;
  uint8_t Data4[8];
};
#endif
typedef const GUID &Iid;

// The interfaces of dxcapi.h and d3dcommon.h; the sequence of methods must match.
struct Unknown {
  virtual HRESULT QueryInterface(Iid, void **) = 0;
  virtual uint32_t AddRef() = 0;
  virtual uint32_t Release() = 0;
};
struct Blob : Unknown {
  virtual void *GetBufferPointer() = 0;
  virtual size_t GetBufferSize() = 0;
};
struct BlobEncoding : Blob {
  virtual HRESULT GetEncoding(int *, uint32_t *) = 0;
};
struct BlobUtf8 : BlobEncoding {
  virtual const char *GetStringPointer() = 0;
  virtual size_t GetStringLength() = 0;
};
struct Result : Unknown {
  virtual HRESULT GetStatus(HRESULT *) = 0;
  virtual HRESULT GetResult(Blob **) = 0;
  virtual HRESULT GetErrorBuffer(BlobEncoding **) = 0;
  virtual int HasOutput(int) = 0;
  virtual HRESULT GetOutput(int, Iid, void **, void **) = 0;
};
struct Source {
  const void *text;
  size_t size;
  uint32_t encoding;
};
struct Compiler3 : Unknown {
  virtual HRESULT Compile(const Source *, const wchar_t **, uint32_t, void *, Iid, void **) = 0;
};
typedef HRESULT (*CreateInstance)(Iid, Iid, void **);
typedef HRESULT (*D3DCompile)(const void *, size_t, const char *, const void *, void *, const char *, const char *,
                              uint32_t, uint32_t, Blob **, Blob **);

static const GUID CLSID_COMPILER = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID IID_COMPILER3 = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID IID_RESULT = {0x58346cda, 0xdde7, 0x4497, {0x94, 0x61, 0x6f, 0x87, 0xaf, 0x5e, 0x06, 0x59}};
static const GUID IID_BLOB_UTF8 = {0x3da636c9, 0xba71, 0x4024, {0xa3, 0x01, 0x30, 0xcb, 0xf1, 0x25, 0x30, 0x5b}};
static const GUID IID_BLOB = {0x8ba5fb08, 0x5195, 0x40e2, {0xac, 0x58, 0x0d, 0x98, 0x9c, 0x3a, 0x01, 0x02}};
static const int OUT_OBJECT = 1, OUT_ERRORS = 2;
static const uint32_t UTF8 = 65001, FXC_STRICT = 1 << 11;
// DXC before 1.8.2502 prints this warning without dxil.dll. Signatures are not tested here.
static const char UNSIGNED[] = "warning: DXIL signing library";

struct Job {
  std::string path, text, entry;
  bool half;
};
struct Outcome {
  size_t bytes = 0;
  std::string wrong;
};

static void *load(const char *path, const char *symbol) {
#ifdef _WIN32
  HMODULE library = LoadLibraryA(path);
  if (!library) {
    fprintf(stderr, "%s does not load: %lu\n", path, GetLastError());
    exit(2);
  }
  return (void *)GetProcAddress(library, symbol);
#else
  void *library = dlopen(path, RTLD_NOW);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    exit(2);
  }
  return dlsym(library, symbol);
#endif
}

static Job read(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  std::string text = all.str(), head = text.substr(0, text.find('\n')), entry;
  std::stringstream words(head.size() > 9 ? head.substr(9) : "");
  words >> entry;
  return {path, text, entry, head.find("// 16-bit") != std::string::npos};
}

static Outcome with_fxc(D3DCompile compile, const Job &job, const std::string &model) {
  Blob *code = nullptr, *errors = nullptr;
  std::string target = "cs_" + model;
  HRESULT status = compile(job.text.data(), job.text.size(), "kernel", nullptr, nullptr, job.entry.c_str(),
                           target.c_str(), FXC_STRICT, 0, &code, &errors);
  Outcome outcome;
  if (status < 0) {
    outcome.wrong = errors ? std::string((char *)errors->GetBufferPointer(), errors->GetBufferSize()) : "an error";
  } else {
    outcome.bytes = code->GetBufferSize();
  }
  if (code) code->Release();
  if (errors) errors->Release();
  return outcome;
}

static Outcome with_dxc(Compiler3 *compiler, const Job &job, const std::string &model) {
  std::string target = "cs_" + model;
  std::wstring entry(job.entry.begin(), job.entry.end()), profile(target.begin(), target.end());
  std::vector<const wchar_t *> arguments = {L"kernel", L"-E",   entry.c_str(),   L"-T",  profile.c_str(),
                                            L"-HV",    L"2018", L"-no-warnings", L"-Ges"};
  if (job.half) arguments.push_back(L"-enable-16bit-types");
  Source source = {job.text.data(), job.text.size(), UTF8};
  Result *result = nullptr;
  Outcome outcome;
  if (compiler->Compile(&source, arguments.data(), arguments.size(), nullptr, IID_RESULT, (void **)&result) < 0) {
    outcome.wrong = "Compile failed";
    return outcome;
  }
  BlobUtf8 *errors = nullptr;
  Blob *code = nullptr;
  if (result->GetOutput(OUT_ERRORS, IID_BLOB_UTF8, (void **)&errors, nullptr) >= 0 && errors) {
    outcome.wrong.assign(errors->GetStringPointer(), errors->GetStringLength());
    errors->Release();
  }
  if (outcome.wrong.rfind(UNSIGNED, 0) == 0) outcome.wrong.clear();
  if (outcome.wrong.empty() && result->GetOutput(OUT_OBJECT, IID_BLOB, (void **)&code, nullptr) >= 0 && code) {
    outcome.bytes = code->GetBufferSize();
    code->Release();
  }
  if (outcome.wrong.empty() && outcome.bytes == 0) outcome.wrong = "no shader and no error";
  result->Release();
  return outcome;
}

// Formats errors, then warnings, on one line.
static std::string line(const std::string &text) {
  std::string errors, rest, one, out;
  std::stringstream lines(text);
  while (std::getline(lines, one)) (one.find("error") != std::string::npos ? errors : rest) += one + "\n";
  for (char c : errors + rest) {
    if (c == '\n') out += " / ";
    else if (c == '\t') out += ' ';
    else if (c != '\r' && c != 0) out += c;
  }
  return out.substr(0, 900);
}

static FILE *results;
static std::mutex writing;
static void write(const std::string &path, double ms, const Outcome &outcome) {
  fprintf(results, "%s\t%.1f\t%zu\t%s\n", path.c_str(), ms, outcome.bytes, line(outcome.wrong).c_str());
  fflush(results);
}

typedef std::chrono::steady_clock Clock;
static std::atomic<Clock::rep> began{0};
static std::string current;

// Ends the program when a file takes too long, since a compiler cannot be interrupted.
static void watch(double seconds) {
  for (;;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    std::lock_guard<std::mutex> held(writing);
    Clock::rep since = began.load();
    double took = std::chrono::duration<double>(Clock::now().time_since_epoch() - Clock::duration(since)).count();
    if (since == 0 || took < seconds) continue;
    Outcome late;
    late.wrong = "error: took more than " + std::to_string((int)seconds) + " seconds";
    write(current, took * 1000, late);
    _Exit(3);
  }
}

int main(int count, char **arguments) {
  if (count != 7) return 2;
  bool is_fxc = !strcmp(arguments[1], "fxc");
  std::string model = arguments[3];
  void *entry = load(arguments[2], is_fxc ? "D3DCompile" : "DxcCreateInstance");
  Compiler3 *dxc = nullptr;
  if (!entry || (!is_fxc && ((CreateInstance)entry)(CLSID_COMPILER, IID_COMPILER3, (void **)&dxc) < 0)) {
    fprintf(stderr, "%s is not the compiler\n", arguments[2]);
    return 2;
  }
  results = fopen(arguments[6], "ab");
  std::thread(watch, atof(arguments[4])).detach();
  std::ifstream list(arguments[5]);
  std::string path;
  while (std::getline(list, path)) {
    if (!path.empty() && path.back() == '\r') path.pop_back();
    Job job = read(path);
    Clock::time_point start = Clock::now();
    {
      std::lock_guard<std::mutex> held(writing);
      current = path;
      began = start.time_since_epoch().count();
    }
    Outcome outcome = is_fxc ? with_fxc((D3DCompile)entry, job, model) : with_dxc(dxc, job, model);
    std::lock_guard<std::mutex> held(writing);
    began = 0;
    write(path, std::chrono::duration<double, std::milli>(Clock::now() - start).count(), outcome);
  }
  fclose(results);
  // Skips destructors, since the watching thread still runs.
  _Exit(0);
}
