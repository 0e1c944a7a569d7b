/** What a guard remembers over restarts: the last snapshot that it took, as the broker signed it, and its version. */

/** Where the last snapshot is kept. */
export interface SnapshotMemory {
  /** What was saved last, if there is anything. */
  load(): Promise<string | undefined>;
  /** Replaces it. */
  save(text: string): Promise<void>;
}

/** A file of one guard (Node, Deno, Bun). It is replaced whole, or not at all. */
export function snapshotFile(path: string): SnapshotMemory {
  return {
    async load() {
      const { readFile } = await import("node:fs/promises");
      return readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      });
    },
    async save(text) {
      const { rename, writeFile } = await import("node:fs/promises");
      const temporary = `${path}.${crypto.randomUUID()}.tmp`;
      await writeFile(temporary, text, { mode: 0o600, flag: "wx" });
      await rename(temporary, path);
    },
  };
}
