// Requests to the server that the page came from, and to no other.

const KEY = "uniface-studio-token";

/** Refusal by the server, or its silence; the message is for the user. */
export class Refused extends Error {}

/** Take the token out of an address that ends in #token=…, so that it is not shown or shared. */
export function takeToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return false;
  sessionStorage.setItem(KEY, decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname);
  return true;
}

/** Return what the server knows: model, gallery, thresholds, limits. */
export const readState = () => ask("studio/state");

/** Return a set of the evaluation. */
export const readSet = (number) => ask(`studio/sets/${number}`);

/** Send a photograph; return its size, a preview and its faces. */
export const findFaces = (file, signal) =>
  ask("studio/faces", { method: "POST", body: file, signal,
    headers: { "Content-Type": "application/octet-stream" } });

/** Return the cosine of two features. */
export const compare = (first, second) => post("studio/compare", { first, second });

/** Return the nearest faces of the gallery. */
export const search = (feature) => post("studio/search", { feature });

function post(path, content) {
  return ask(path, { method: "POST", body: JSON.stringify(content),
    headers: { "Content-Type": "application/json" } });
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?");
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok && content !== null) return content;
  throw new Refused(said(answer.status, content));
}

function said(status, content) {
  if (status === 401) return "The server wants its token: put #token=TOKEN behind the address.";
  const detail = content?.detail;
  if (typeof detail === "string") return detail;
  if (status === 413) return "The file is larger than the server takes.";
  if (status === 429 || status === 503) return "The server is busy; try again in a moment.";
  return `The server refused this (${status}).`;
}
