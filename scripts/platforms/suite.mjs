// Checks of the engine in the build root, without a package:
//
//   node suite.mjs tests PLATFORM CRATE…     builds their tests, and prints their paths by crate
//   node suite.mjs types PLATFORM            checks the types of the binding and of all its dependencies
import { argv } from "node:process";
import { buildTests, checkTypes } from "../build-binary.mjs";

const [what, name, ...crates] = argv.slice(2);
if (what === "tests") console.log(JSON.stringify(buildTests(name, crates)));
else checkTypes(name);
