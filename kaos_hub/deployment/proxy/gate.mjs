// Keeps pages of one user's servers out of other users' browsers until they have said yes.
//
// Without a domain per user, whatever a user's server shows runs as part of the Hub's own pages: a
// script in it could do all that its visitor may. So a page, frame or worker of a user's server is
// only let through with a cookie that the Hub's page /hub/kaos/visit gives: to the user at once,
// to others after a question. And has streams begin at once, and knows whom it asks over TLS
// (c.JupyterHub.internal_ssl) by the address that it asks at. Loaded by `node --import` before configurable-http-proxy.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { realpathSync } from "node:fs";
import { Agent } from "node:https";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const SILENT = 200; // milliseconds
const USER = /^(\/(?:.*\/)?)user\/([^/]+)(?:\/|$)/;
// What can run a script of its own: https://developer.mozilla.org/docs/Web/HTTP/Headers/Sec-Fetch-Dest
const RUNS = new Set([
  "document", "iframe", "frame", "fencedframe", "embed", "object",
  "serviceworker", "sharedworker", "worker",
]);

const token = process.env.CONFIGPROXY_AUTH_TOKEN || "";
const key = createHmac("sha256", token).update("kaos visits").digest();

const lib = join(dirname(realpathSync(process.argv[1])), "../lib/configproxy.js");
const { ConfigurableProxy } = await import(pathToFileURL(lib));
const handle = ConfigurableProxy.prototype.handleProxyWeb;

ConfigurableProxy.prototype.handleProxyWeb = async function (req, res) {
  const refused = token && runs(req) && (await refusal(this, req));
  if (!refused) {
    res.once("pipe", () => setTimeout(begin, SILENT, res).unref());
    return handle.call(this, req, res);
  }
  res.writeHead(302, { Location: refused, "Cache-Control": "no-store", Connection: "close" });
  res.end();
};

// Node keeps the head of an answer back until there is something of its body: who follows a log that says
// nothing yet would take it for a service that does not answer.
function begin(res) {
  if (!res.headersSent && !res.writableEnded && !res.destroyed) res.flushHeaders();
}

// Else node would look on the certificate for the name that the visitor uses for the hub, which it takes
// from the request, and by no other name anything behind the proxy were reached.
class AgentByAddress extends Agent {
  addRequest(req, options, ...more) {
    const host = options.hostname || options.host;
    return super.addRequest(req, { ...options, servername: isIP(host) ? "" : host }, ...more);
  }
}

const agent = new AgentByAddress({ keepAlive: true });
const optionsFor = ConfigurableProxy.prototype.proxyOptsForTarget;

ConfigurableProxy.prototype.proxyOptsForTarget = function (target) {
  const options = optionsFor.call(this, target);
  if (options.secure && this.options.clientSsl) options.agent = agent;
  return options;
};

// Whether what is answered may become a page. Over plain HTTP browsers do not say what for they ask.
function runs(req) {
  const dest = req.headers["sec-fetch-dest"];
  if (dest) return RUNS.has(dest);
  const known = /^(token|bearer) /i.test(req.headers.authorization || "");
  return !known && /text\/html|application\/xhtml/i.test(req.headers.accept || "");
}

// Where to ask, if whoever asks has not said yes to the user whose server it is.
async function refusal(proxy, req) {
  if (proxy.hostRouting) return null; // users have domains, which browsers keep apart
  let route;
  try {
    route = await proxy.targetForReq(req);
  } catch {
    return null; // the address makes no sense: the proxy itself says so
  }
  const match = route && USER.exec(route.prefix);
  if (!match || said(req, match[2])) return null;
  return `${match[1]}hub/kaos/visit?next=${encodeURIComponent(req.url)}`;
}

function said(req, user) {
  const cookies = new Map(
    (req.headers.cookie || "").split(";").map((one) => {
      const [name, ...rest] = one.trim().split("=");
      return [name, rest.join("=").replace(/^"|"$/g, "")];
    }),
  );
  const name = "kaos-visit-" + createHash("sha256").update(user).digest("hex").slice(0, 16);
  const [until, given] = (cookies.get(name) || "").split(".");
  if (!given || !(Number(until) > Date.now() / 1000)) return false;
  const session = cookies.get("jupyterhub-session-id") || "";
  const right = createHmac("sha256", key).update(`${user}\n${until}\n${session}`).digest();
  const bytes = Buffer.from(given, "hex");
  return bytes.length === right.length && timingSafeEqual(bytes, right);
}
