// Answers the email of a workplace with @modelcontextprotocol/client, in the revision without sessions: node typescript_client.mjs URL
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const client = new Client({ name: "typescript-client", version: "1" }, { versionNegotiation: { mode: "auto" } });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
if (client.getNegotiatedProtocolVersion() !== "2026-07-28") throw new Error(client.getNegotiatedProtocolVersion());
const call = async (name, args = {}) => {
  const result = await client.callTool({ name, arguments: args });
  if (result.isError) throw new Error(JSON.stringify(result));
  return result;
};

const tools = (await client.listTools()).tools.map((tool) => tool.name);
const inbox = (await call("read_inbox")).structuredContent;
for (const email of inbox.emails) await call("send_email", { to: email.sender, subject: `Re: ${email.subject}` });
const sent = JSON.parse((await call("list_sent")).content[0].text);
await client.close();
console.log(JSON.stringify({ tools, inbox, sent }));
