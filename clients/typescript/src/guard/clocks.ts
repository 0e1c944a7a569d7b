/** Whether wall and monotonic clock go together: a jump would stretch or cut the life of every token. */

/**
 * Refuses while the clocks have parted. Slow drift (NTP slewing) is followed, by 1 ms in a second; a jump is not, until
 * the clock comes back or the process restarts.
 */
export class ClockWatch {
  /** Wall minus monotonic time, as agreed. */
  private offsetMs: number | undefined;
  /** Uptime up to which drift was followed. */
  private followedMs = 0;

  /** Whether the clocks have parted by no more than two seconds since the first look. */
  agree(nowMs: number, uptimeMs: number): boolean {
    const look = nowMs - uptimeMs;
    if (this.offsetMs === undefined) [this.offsetMs, this.followedMs] = [look, uptimeMs];
    const parted = look - this.offsetMs;
    if (Math.abs(parted) > MAX_DRIFT_MS) return false;
    const mayFollow = Math.max(0, uptimeMs - this.followedMs) / 1000;
    this.offsetMs += Math.sign(parted) * Math.min(Math.abs(parted), mayFollow);
    this.followedMs = Math.max(this.followedMs, uptimeMs);
    return true;
  }
}

const MAX_DRIFT_MS = 2_000;
