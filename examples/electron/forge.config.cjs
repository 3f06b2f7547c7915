// The plugin unpacks every .node file; the model must also be unpacked, since native code opens it.
module.exports = {
  packagerConfig: { asar: { unpack: "**/node_modules/lowrank/models/**" } },
  rebuildConfig: { onlyModules: [] },
  plugins: [{ name: "@electron-forge/plugin-auto-unpack-natives", config: {} }],
  makers: [
    { name: "@electron-forge/maker-zip", platforms: ["darwin", "linux"] },
    { name: "@electron-forge/maker-squirrel" },
  ],
};
