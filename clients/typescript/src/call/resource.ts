/**
 * Which resources a registry entry names: one URI, or with `/*` at its end everything below. URIs have no normal form
 * here: they are compared as they stand, and below a prefix nothing is admitted that could lead out of it.
 */

/** Whether a request may name this as a resource at all: an absolute URI of RFC 3986's characters. */
export function isUri(uri: string): boolean {
  return uri.length <= MAX_URI_BYTES && URI.test(uri);
}

/** Whether one entry names this URI. */
export function names(entry: string, uri: string): boolean {
  if (!isUri(uri)) return false;
  if (!entry.endsWith("/*")) return entry === uri;
  const prefix = entry.slice(0, -1);
  return uri.startsWith(prefix) && isBelow(uri.slice(prefix.length));
}

/** The entry that names this URI: the URI itself goes before a prefix, a longer prefix before a shorter one. */
export function find(entries: { has(entry: string): boolean }, uri: string): string | undefined {
  if (!isUri(uri)) return undefined;
  if (!uri.endsWith("/*") && entries.has(uri)) return uri;
  for (let slash = uri.lastIndexOf("/"); slash >= 0; slash = slash === 0 ? -1 : uri.lastIndexOf("/", slash - 1)) {
    const entry = `${uri.slice(0, slash + 1)}*`;
    // The longest prefix decides: where it admits nothing, no shorter one does.
    if (entries.has(entry)) return isBelow(uri.slice(slash + 1)) ? entry : undefined;
  }
  return undefined;
}

/** What may stand behind a prefix: segments, none of them empty but the last, nothing encoded, nothing that climbs. */
function isBelow(rest: string): boolean {
  if (rest === "" || rest.includes("..") || /[%\\?#]/.test(rest)) return false;
  const segments = rest.split("/");
  const climbs = segments.some((segment) => segment === "." || segment.startsWith(".;"));
  return !climbs && !segments.slice(0, -1).includes("");
}

const URI = /^[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\-._~:/?#[\]@!$&'()*+,;=%]+$/;
const MAX_URI_BYTES = 1024;
