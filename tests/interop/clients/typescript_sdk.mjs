// Answers the email of a workplace with @modelcontextprotocol/sdk: node typescript_sdk.mjs URL
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const client = new Client({ name: "typescript-sdk", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
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
