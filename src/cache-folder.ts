/** Where what may be lost is kept: the folder for it that each system has. */
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** This package's folder, which need not be there; none where the user has no home. */
export function cacheFolder(
  platform: NodeJS.Platform = process.platform,
  env: NodeJS.ProcessEnv = process.env,
  home: () => string = homedir,
): string | undefined {
  const base = baseFolder(platform, env, home);
  return base === undefined ? undefined : join(base, "lowrank");
}

function baseFolder(
  platform: NodeJS.Platform,
  env: NodeJS.ProcessEnv,
  home: () => string,
): string | undefined {
  // A relative path is to be ignored (XDG Base Directory Specification): it would name a folder by where one stands.
  const named = platform === "win32" ? env["LOCALAPPDATA"] : env["XDG_CACHE_HOME"];
  if (platform !== "darwin" && named !== undefined && isAbsolute(named)) return named;
  const inHome = { win32: ["AppData", "Local"], darwin: ["Library", "Caches"] } as Record<string, string[]>;
  try {
    const own = home();
    return isAbsolute(own) ? join(own, ...(inHome[platform] ?? [".cache"])) : undefined;
  } catch {
    // A user whom the system does not know.
    return undefined;
  }
}
