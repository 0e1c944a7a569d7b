/** Why a schema or arguments are refused. */
export class SchemaError extends Error {
  override readonly name = "SchemaError";

  constructor(
    /** JSON Pointer into the arguments (or into the schema, when compiling). */
    readonly pointer: string,
    /** What is wrong; never contains the arguments' values. */
    readonly problem: string,
  ) {
    // A pointer into arguments is made of the caller's member names, which may be long.
    super(`${pointer.slice(0, MAX_POINTER_LENGTH)}: ${problem}`);
  }
}

const MAX_POINTER_LENGTH = 256;
