/**
 * Which resources a registry entry names: one URI, or with `/*` at its end everything below. URIs have no normal form
 * here: they are compared character by character, and below a prefix nothing is admitted that could lead out of it, or
 * that could be read as what a narrower entry names.
 */

/**
 * Whether a request may name this as a resource at all: an absolute URI of RFC 3986's characters, and none that is an entry
 * for everything below: in a token's scope it could be read so.
 */
export function isUri(uri: string): boolean {
  return isAbsolute(uri) && !uri.endsWith("/*");
}

/**
 * Whether a registry may have this as an entry: a URI, or with `/` and `*` at its end all that lies below it. It is spelt as
 * requests below a prefix have to be, where nothing is encoded: to a server that decodes or folds case (RFC 3986 §6.2.2)
 * another spelling would be the same thing, and to a wider entry one of its own.
 */
export function isEntry(entry: string): boolean {
  if (!isAbsolute(entry) || hasNeedlessEscape(entry)) return false;
  const [, scheme = "", host = ""] = /^([^:]*):(?:\/\/([^/?#]*))?/.exec(entry) ?? [];
  if (/[A-Z]/.test(scheme + host) || host.includes("@")) return false;
  if (entry.split(/[/?#]/).some((segment) => segment === "." || segment === "..")) return false;
  if (!entry.endsWith("/*")) return true;
  const prefix = entry.slice(0, -1);
  return !prefix.includes("..") && !/[%?#*]/.test(prefix) && /^[^:]*:\/\/\/*[^/]/.test(prefix);
}

/** Whether one entry names this URI. */
export function names(entry: string, uri: string): boolean {
  if (!isUri(uri)) return false;
  if (!entry.endsWith("/*")) return entry === uri;
  const prefix = entry.slice(0, -1);
  return uri.startsWith(prefix) && isBelow(uri.slice(prefix.length));
}

/**
 * The entry that decides about this URI, where it names it: the URI itself goes before a prefix, a longer prefix before a
 * shorter one. An entry that is switched off decides too, so `entries` must have it.
 */
export function find(entries: { has(entry: string): boolean }, uri: string): string | undefined {
  if (!isUri(uri)) return undefined;
  if (entries.has(uri)) return uri;
  // To many servers `…/drafts` and `…/drafts/` are one: who speaks of one of them, or of all in it, decides for both.
  if (entries.has(`${uri}/`) || entries.has(`${uri}/*`)) return undefined;
  for (let slash = uri.lastIndexOf("/"); slash >= 0; slash = slash === 0 ? -1 : uri.lastIndexOf("/", slash - 1)) {
    const entry = `${uri.slice(0, slash + 1)}*`;
    // The longest prefix decides: where it admits nothing, no shorter one does.
    if (entries.has(entry)) return isBelow(uri.slice(slash + 1)) ? entry : undefined;
  }
  return undefined;
}

function hasNeedlessEscape(uri: string): boolean {
  const escapes = uri.split("%").slice(1);
  return escapes.some((escape) => {
    const digits = /^[0-9A-Fa-f]{2}/.exec(escape)?.[0];
    return digits === undefined || PLAIN.test(String.fromCharCode(Number.parseInt(digits, 16)));
  });
}

function isAbsolute(uri: string): boolean {
  return uri.length <= MAX_URI_BYTES && URI.test(uri);
}

/** What may stand behind a prefix: segments, none of them empty, the last included; nothing encoded, nothing that climbs. */
function isBelow(rest: string): boolean {
  if (rest === "" || rest.includes("..") || /[%\\?#]/.test(rest)) return false;
  const segments = rest.split("/");
  const climbs = segments.some((segment) => segment === "." || segment.startsWith(".;"));
  return !climbs && !segments.includes("");
}

const URI = /^[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\-._~:/?#[\]@!$&'()*+,;=%]+$/;
/** What may stand as it is below a prefix, where nothing is encoded; and a backslash, which is none for anybody. */
const PLAIN = /[A-Za-z0-9\-._~:/[\]@!$&'()*+,;=\\]/;
const MAX_URI_BYTES = 1024;
