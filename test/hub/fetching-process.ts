/** Downloads a model in a separate process, and prints the folder. */
import { hubName, type HubName } from "../../src/hub/name.js";
import { hubSnapshot } from "../../src/hub/snapshot.js";

const { folder } = await hubSnapshot(hubName(process.argv[2] as string) as HubName);
process.stdout.write(folder);
