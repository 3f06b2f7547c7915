export { LowrankError, type ErrorCode } from "./errors.js";
