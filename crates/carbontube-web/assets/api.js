// Questions to the server, and its errors.

/** What the server answered instead of what was asked for. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.count = error.count;
  }
}

/** Called when the server wants a token; set by the app. */
export const hooks = { token: () => {} };

async function answer(response) {
  if (response.ok) return response.status === 204 ? null : response.json();
  let error = { code: "unknown", message: `the server answered ${response.status}` };
  try {
    error = (await response.json()).error ?? error;
  } catch {
    // Not ours: what a proxy in between says is not JSON.
  }
  if (response.status === 401) hooks.token();
  throw new ApiError(response.status, error);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { code: "offline", message: "the web server cannot be reached" });
  }
  return answer(response);
}

/** The query part of an address; empty values are left out. */
export function query(parameters) {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") search.set(key, value);
  }
  const text = search.toString();
  return text ? `?${text}` : "";
}

export const get = (path, parameters = {}, options = {}) => ask(path + query(parameters), options);

export const post = (path, body) =>
  ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Carbontube": "1" },
    body: JSON.stringify(body),
  });

/** Where the API has a pipeline. */
export const base = (key) => `/api/v1/pipelines/${encodeURIComponent(key)}`;
