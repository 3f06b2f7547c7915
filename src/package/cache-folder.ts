/** The system's folder for caches. */
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** Returns this package's cache folder, which may not exist; undefined if the user has no home. */
export function findCacheFolder(
  platform: NodeJS.Platform = process.platform,
  env: NodeJS.ProcessEnv = process.env,
  home: () => string = homedir,
): string | undefined {
  const base = findBaseFolder(platform, env, home);
  return base === undefined ? undefined : join(base, "lowrank");
}

function findBaseFolder(
  platform: NodeJS.Platform,
  env: NodeJS.ProcessEnv,
  home: () => string,
): string | undefined {
  // The XDG Base Directory Specification says to ignore relative paths, which depend on the working directory.
  const named = platform === "win32" ? env["LOCALAPPDATA"] : env["XDG_CACHE_HOME"];
  if (platform !== "darwin" && named !== undefined && isAbsolute(named)) return named;
  const inHome = { win32: ["AppData", "Local"], darwin: ["Library", "Caches"] } as Record<string, string[]>;
  try {
    const homeFolder = home();
    return isAbsolute(homeFolder) ? join(homeFolder, ...(inHome[platform] ?? [".cache"])) : undefined;
  } catch {
    // The user is unknown to the system.
    return undefined;
  }
}
