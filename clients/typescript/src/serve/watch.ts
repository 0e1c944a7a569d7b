/** Looks at the server's definitions now and then, and says when they are not what was approved. */

import type { JsonObject } from "../call/json.js";
import type { DriftedTool } from "../guard/known.js";
import { discover } from "./discovery.js";
import type { LinkedGuardLike, ProtectSettings } from "./protect.js";

/** Keeps what the guard knows of the server's tools fresh. */
export class Watch {
  private observed: Promise<void> | undefined;
  private observedAtMs = -Infinity;
  /** How often it was told that the tools are not what they were. */
  private changes = 0;
  /** How often it had been told when it last began to look. */
  private changesSeen = 0;
  private isDiscovered = false;
  /** The changes that were reported, by tool. As many as a snapshot has tools, at most. */
  private readonly drifts = new Map<string, string>();

  constructor(
    private readonly link: LinkedGuardLike,
    private readonly probe: (request: Request) => Promise<Response>,
    private readonly settings: Pick<ProtectSettings, "tools" | "prompts" | "discoveryMs">,
    private readonly failed: (error: unknown) => void,
  ) {}

  /**
   * Asks the server for its definitions, where they were not asked for of late. One asks for all. To be called for
   * callers whose token was verified, and for nobody else: it makes the server work.
   */
  async observe(): Promise<void> {
    if (this.isFresh()) return;
    if (this.observed !== undefined && this.changesSeen !== this.changes) {
      // It began before the last news, which may have come too late for it.
      await this.observed;
      if (this.isFresh()) return;
    }
    this.observed ??= this.discover().finally(() => (this.observed = undefined));
    await this.observed;
  }

  /** The server's tools are not what they were: whoever comes next waits for a new look. */
  lookAgain(): void {
    this.changes += 1;
    this.observedAtMs = -Infinity;
  }

  private isFresh(): boolean {
    const { discoveryMs = DISCOVERY_MS } = this.settings;
    return performance.now() - this.observedAtMs < discoveryMs;
  }

  private async discover(): Promise<void> {
    const { guard } = this.link;
    this.changesSeen = this.changes;
    try {
      const tools = await soon(this.definitions());
      const { approved, drifted, unknown } = await guard.observeTools(tools);
      if (!this.isDiscovered) {
        const detail = { approved: approved.length, drifted: drifted.length, unknown: unknown.length };
        this.link.report({ kind: "discovered", detail });
      }
      this.isDiscovered = true;
      this.reportDrift(drifted);
      await this.lookAtPrompts();
      if (this.changesSeen === this.changes) this.observedAtMs = performance.now();
    } catch (error) {
      // The guard goes on with what it saw; if it saw nothing, it stops calls.
      this.failed(error);
      const { discoveryMs = DISCOVERY_MS } = this.settings;
      this.observedAtMs = performance.now() - discoveryMs + DISCOVERY_RETRY_MS;
    }
  }

  /** The broker stops issuing for a tool that drifted. It is told once of each change. */
  private reportDrift(drifted: readonly DriftedTool[], action?: "prompts/get"): void {
    for (const { name: tool, approved, live } of drifted) {
      const [key, change] = [`${action ?? ""} ${tool}`, `${approved} ${live}`];
      if (this.drifts.get(key) === change) continue;
      this.drifts.set(key, change);
      this.link.report({ kind: "drifted", tool, ...(action === undefined ? {} : { action }), detail: { approved, ...(live === undefined ? {} : { live }) } });
    }
  }

  private async definitions(): Promise<readonly JsonObject[]> {
    const { tools } = this.settings;
    return tools === undefined ? discover(this.probe, this.link.guard.config.publicUrl, "tools") : tools();
  }

  private async lookAtPrompts(): Promise<void> {
    const { guard } = this.link;
    if ((guard.installed?.prompts.size ?? 0) === 0) return;
    const { prompts } = this.settings;
    const listed = prompts === undefined ? discover(this.probe, guard.config.publicUrl, "prompts") : prompts();
    const { drifted } = await guard.observePrompts(await soon(listed));
    this.reportDrift(drifted, "prompts/get");
  }
}

/** A handler that does not answer holds nobody up for long. */
async function soon<T>(promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the server does not list its tools in time")), DISCOVERY_TIMEOUT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const DISCOVERY_MS = 30_000;
const DISCOVERY_RETRY_MS = 1_000;
const DISCOVERY_TIMEOUT_MS = 5_000;
