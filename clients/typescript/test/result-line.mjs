/** Ends a run with one line of the form that Rust test programs have, for whoever adds up. */

/** @param {AsyncIterable<{ type: string, data: any }>} source */
export default async function* resultLine(source) {
  let passed = 0;
  let failed = 0;
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (data.details?.type === "suite") continue;
    // A test that is skipped or yet to be written shows nothing.
    const holds = type === "test:pass" && data.skip === undefined && data.todo === undefined;
    if (holds) passed += 1;
    else failed += 1;
  }
  yield `test result: ${failed === 0 ? "ok" : "FAILED"}. ${passed} passed; ${failed} failed\n`;
}
