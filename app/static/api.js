// Calls of the service: the key, its errors, and patience while it starts.

const KEY = "chemtwin-key";
const PATIENCE_S = 120; // of waiting for a service that is starting

export class ServiceError extends Error {
  constructor(status, code, message, detail) {
    super(message);
    Object.assign(this, { status, code, detail });
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

const listeners = { unauthorized: () => {}, starting: () => {} };

/** Call `tell` when a key is missing or wrong ("unauthorized"), or while the service starts ("starting"). */
export function on(event, tell) {
  listeners[event] = tell;
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  for (const began = Date.now(); ; ) {
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError(0, "unreachable", "the service cannot be reached: is it running?", []);
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    const waiting = response.status === 503 && error.code === "starting";
    if (!waiting || Date.now() - began > 1000 * PATIENCE_S) {
      if (response.status === 401) listeners.unauthorized(error);
      throw error;
    }
    listeners.starting(error);
    await pause(1000 * Number(response.headers.get("Retry-After") ?? 1), options.signal);
  }
}

async function errorOf(response) {
  try {
    const { error } = await response.json();
    return new ServiceError(response.status, error.code, error.message, error.detail);
  } catch {
    return new ServiceError(response.status, "no_json", `the service responded with ${response.status}`, []);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("", "AbortError"));
    });
  });
}

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(given).toString();
  return text ? `?${text}` : "";
}

export const getJson = async (path, signal) => (await request(path, { signal })).json();

const JSON_BODY = { "Content-Type": "application/json" };
const FITS_BODY = { "Content-Type": "application/fits" };

export const postJson = async (path, body, signal) =>
  (await request(path, { method: "POST", headers: JSON_BODY, body: JSON.stringify(body), signal })).json();

export const postFits = async (path, file, signal) =>
  (await request(path, { method: "POST", headers: FITS_BODY, body: file, signal })).json();

/** Let the browser save an response, under the name that the service gives it. */
export async function download(path, body) {
  const fits = body instanceof Blob;
  const options = body && {
    method: "POST",
    headers: fits ? FITS_BODY : JSON_BODY,
    body: fits ? body : JSON.stringify(body),
  };
  const response = await request(path, options);
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "")?.[1] ?? "chemtwin";
  save(URL.createObjectURL(await response.blob()), name);
}

export function save(url, name) {
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  if (url.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Parameters by name as `to` of a body of /recast. */
export function toBody(to) {
  const usual = ["teff", "logg", "fe_h"];
  const names = Object.keys(to);
  const parameters = Object.fromEntries(names.filter((name) => !usual.includes(name)).map((name) => [name, to[name]]));
  const usualOnes = Object.fromEntries(names.filter((name) => usual.includes(name)).map((name) => [name, to[name]]));
  return Object.keys(parameters).length ? { ...usualOnes, parameters } : usualOnes;
}
