/*
 * Makes a program detect a lesser x64 processor than the actual one. Preloaded (LD_PRELOAD), it makes the instruction
 * CPUID fault and emulates it without the features that PROCESSOR lacks: "avx2" has neither AVX-512 nor AMX nor later
 * features, "sse2" nothing after SSE3. Faulting is set per thread and inherited by threads and forks; a newly executed
 * program sets it again. arch_prctl(2), ARCH_SET_CPUID; Intel SDM volume 2, CPUID, leaves 1 and 7.
 *
 * Ends the program with status 99 if the processor or the kernel does not support this, or PROCESSOR has another value.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { SET_CPUID = 0x1012, NOT_HERE = 99 };
#define BIT(n) (1u << (n))

/* The bits to keep in a leaf's registers. */
struct leaf {
  unsigned leaf, part, eax, ebx, ecx, edx;
};

static const struct leaf avx2[] = {
    /* AVX512F, DQ, IFMA, PF, ER, CD, BW, VL | VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ | 4VNNIW, 4FMAPS, VP2INTERSECT,
       AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8 */
    {7, 0, ~0u,
     ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31)),
     ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)),
     ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25))},
    /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA | AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
    {7, 1, ~(BIT(4) | BIT(5) | BIT(21) | BIT(23)), ~0u, ~0u,
     ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19))},
};

static const struct leaf sse2[] = {
    /* PCLMULQDQ, SSSE3, FMA, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, OSXSAVE, AVX, F16C */
    {1, 0, ~0u, ~0u,
     ~(BIT(1) | BIT(9) | BIT(12) | BIT(19) | BIT(20) | BIT(22) | BIT(23) | BIT(25) | BIT(26) | BIT(27) | BIT(28) |
       BIT(29)),
     ~0u},
    {7, 0, 0, 0, 0, 0},
    {7, 1, 0, 0, 0, 0},
};

static const struct leaf *kept;
static int count;

/* Enables or disables CPUID on this thread; returns 0 on success. */
static long allow(long runs) {
  long status;
  __asm__ volatile("syscall"
                   : "=a"(status)
                   : "0"((long)SYS_arch_prctl), "D"((long)SET_CPUID), "S"(runs)
                   : "rcx", "r11", "memory");
  return status;
}

static void answer(int signal_number, siginfo_t *info, void *context) {
  greg_t *to = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)to[REG_RIP];
  if (info->si_code != SI_KERNEL || at[0] != 0x0f || at[1] != 0xa2) {
    /* A fault of the program itself: it faults again and terminates. */
    signal(signal_number, SIG_DFL);
    return;
  }
  unsigned leaf = (unsigned)to[REG_RAX], part = (unsigned)to[REG_RCX], eax, ebx, ecx, edx;
  allow(1);
  __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "0"(leaf), "2"(part));
  allow(0);
  for (const struct leaf *l = kept; l < kept + count; l++)
    /* Leaf 1 has no subleaves. */
    if (l->leaf == leaf && (l->part == part || leaf == 1))
      eax &= l->eax, ebx &= l->ebx, ecx &= l->ecx, edx &= l->edx;
  to[REG_RAX] = eax, to[REG_RBX] = ebx, to[REG_RCX] = ecx, to[REG_RDX] = edx;
  to[REG_RIP] += 2;
}

__attribute__((constructor)) static void hold(void) {
  const char *processor = getenv("PROCESSOR");
  if (processor && !strcmp(processor, "avx2")) {
    kept = avx2, count = sizeof avx2 / sizeof *avx2;
  } else if (processor && !strcmp(processor, "sse2")) {
    kept = sse2, count = sizeof sse2 / sizeof *sse2;
  } else {
    _exit(NOT_HERE);
  }
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  if (sigaction(SIGSEGV, &action, NULL) || allow(0)) _exit(NOT_HERE);
}
