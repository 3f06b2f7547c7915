// The plugin adds every .node file to what is unpacked; the model is opened by native code, too.
module.exports = {
  packagerConfig: { asar: { unpack: "**/node_modules/lowrank/models/**" } },
  rebuildConfig: { onlyModules: [] },
  plugins: [{ name: "@electron-forge/plugin-auto-unpack-natives", config: {} }],
  makers: [
    { name: "@electron-forge/maker-zip", platforms: ["darwin", "linux"] },
    { name: "@electron-forge/maker-squirrel" },
  ],
};
