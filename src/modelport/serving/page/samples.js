// One request as code to copy: for a shell, for Python and for JavaScript.

const LONG = 8000; // characters; a shell takes only so much in one word, so longer bodies come from a here-document

/** [[label, code], ...] for a request. `body` is text, a File, or [[name, text or File], ...] for a form; `key` says whether to show where the
    API key goes. */
export function samples({ method = "POST", url, headers = {}, body = "", key = false }) {
  const request = { method, url, headers, body, key, json: /json/.test(headers["Content-Type"] ?? "") && isJson(body) };
  return [["curl", curl(request)], ["Python", python(request)], ["JavaScript", javascript(request)]];
}

/** The same call with Modelport's own client, of the function `asked` where the model has several. `body` is JSON text, or
    [[name, JSON text or File], ...]. */
export function clientSample({ url, body, key = false, asked = "" }) {
  const lines = key ? ["import os", "", "from modelport import Client", ""] : ["from modelport import Client", ""];
  const more = key ? ', os.environ["MODELPORT_API_KEY"]' : "";
  if (typeof body !== "string") lines.unshift("from pathlib import Path", "");
  lines.push(`client = Client(${JSON.stringify(url)}${more})`, `print(client.predict(${typeof body === "string" ? pythonLiteral(body) : pythonRecord(body)}${asked ? `, function=${JSON.stringify(asked)}` : ""}))`);
  return lines.join("\n");
}

const pythonRecord = (parts) => `{${parts.map(([name, value]) =>
  `${JSON.stringify(name)}: ${value instanceof File ? `Path(${JSON.stringify(value.name)})` : pythonLiteral(value)}`).join(", ")}}`;

/** Text as one word of a POSIX shell. */
export const shellQuote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** JSON text as a Python literal: true, false and null differ, and a few escapes in strings, which JSON.stringify does not use. */
export function pythonLiteral(json) {
  const words = { true: "True", false: "False", null: "None" };
  return json.replace(/"(?:[^"\\]|\\.)*"|true|false|null/g, (token) => words[token] ?? JSON.stringify(JSON.parse(token)));
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function curl({ method, url, headers, body, key }) {
  const parts = [`curl ${method === (body ? "POST" : "GET") ? "" : `-X ${method} `}${shellQuote(url)}`];
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${shellQuote(`${name}: ${value}`)}`);
  if (key) parts.push('-H "Authorization: Bearer $MODELPORT_API_KEY"');
  if (body instanceof File) return [...parts, `--data-binary ${shellQuote(`@${body.name}`)}`].join(" \\\n  ");
  if (typeof body !== "string") {
    const fields = body.map(([name, value]) => (value instanceof File ? `-F ${shellQuote(`${name}=@${value.name}`)}` : `--form-string ${shellQuote(`${name}=${value}`)}`));
    return [...parts, ...fields].join(" \\\n  ");
  }
  if (body.length > LONG) return `${[...parts, "--data-binary @- <<'END_OF_BODY'"].join(" \\\n  ")}\n${body}\nEND_OF_BODY`;
  if (body) parts.push(`--data-raw ${shellQuote(body)}`);
  return parts.join(" \\\n  ");
}

function python({ method, url, headers, body, key, json }) {
  const kept = Object.entries(headers).filter(([name]) => !(json && name === "Content-Type"));
  const pairs = kept.map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  if (key) pairs.push('"Authorization": f"Bearer {os.environ[\'MODELPORT_API_KEY\']}"');
  const lines = [key ? "import os\n\nimport requests" : "import requests", "", `response = requests.${method.toLowerCase()}(`];
  lines.push(`    ${JSON.stringify(url)},`);
  if (body instanceof File) lines.push(`    data=open(${JSON.stringify(body.name)}, "rb"),`);
  else if (typeof body !== "string") lines.push(...pythonForm(body));
  else if (body) lines.push(json ? `    json=${pythonLiteral(body).replaceAll("\n", "\n    ")},` : `    data=${JSON.stringify(body)}.encode(),`);
  if (pairs.length) lines.push(`    headers={${pairs.join(", ")}},`);
  lines.push("    timeout=30,", ")", "response.raise_for_status()", `print(response.${json || typeof body !== "string" ? "json()" : "text"})`);
  return lines.join("\n");
}

function pythonForm(parts) {
  const files = parts.filter(([, value]) => value instanceof File).map(([name, value]) => `(${JSON.stringify(name)}, open(${JSON.stringify(value.name)}, "rb"))`);
  const texts = parts.filter(([, value]) => !(value instanceof File)).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return [...(files.length ? [`    files=[${files.join(", ")}],`] : []), ...(texts.length ? [`    data={${texts.join(", ")}},`] : [])];
}

function javascript({ method, url, headers, body, key, json }) {
  const pairs = Object.entries(headers).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  if (key) pairs.push('"Authorization": "Bearer " + process.env.MODELPORT_API_KEY');
  const lines = [];
  if (typeof body !== "string") lines.push('const file = document.querySelector("input[type=file]").files[0];');
  if (Array.isArray(body)) lines.push("const form = new FormData();", ...body.map(([name, value]) => `form.append(${JSON.stringify(name)}, ${value instanceof File ? "file" : JSON.stringify(value)});`));
  lines.push(`const response = await fetch(${JSON.stringify(url)}, {`);
  if (method !== "GET") lines.push(`  method: ${JSON.stringify(method)},`);
  if (pairs.length) lines.push(`  headers: { ${pairs.join(", ")} },`);
  if (typeof body !== "string") lines.push(`  body: ${Array.isArray(body) ? "form" : "file"},`);
  else if (body) {
    // an object literal would lose digits of large numbers and take __proto__ for its prototype
    const literal = json && !/__proto__|(^|[^.\d])\d{16}/.test(body);
    lines.push(`  body: ${literal ? `JSON.stringify(${body.replaceAll("\n", "\n  ")})` : JSON.stringify(body)},`);
  }
  lines.push("});", "if (!response.ok) throw new Error(await response.text());");
  lines.push(`console.log(await response.${json || typeof body !== "string" ? "json" : "text"}());`);
  return lines.join("\n");
}
