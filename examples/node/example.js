// @ts-check
// node example.js servers | stop SERVER [MESSAGE_ID] | order FILE | results [NUMBER]
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { EcsClient } from './ecs.js';

const { ECS_URL = 'amqp://guest:guest@127.0.0.1:5672', ECS_TENANT, ECS_TOKEN, ECS_USER } = process.env;
// Who asks: a token and its user; or a tenant's name, where the worker trusts its publishers.
const identity = { tenant_id: ECS_TENANT, user_id: ECS_USER, token: ECS_TOKEN };
const print = (/** @type {unknown} */ value) => console.log(JSON.stringify(value));
const LIMIT = Number(process.env.ECS_WAIT ?? 600) * 1000; // ms, for what has no end
const [command, ...words] = process.argv.slice(2);

const client = await EcsClient.connect(ECS_URL);

async function servers() {
  /** @type {import('./models/ServerList').ServerList} */
  const list = { operation: 'server.list', ...identity, pageNo: 1, pageSize: 10, sortField: 'name' };
  const { code, data } = await client.call(list);
  /** @type {import('./models/ServerPage').ServerPage} */
  const page = data;
  print({ code, total: page.totalCount, names: page.servers.map((server) => server.name) });
}

async function stop() {
  const [server_id, messageId] = words;
  /** @type {import('./models/ServerAction').ServerAction} */
  const action = { operation: 'server.action', ...identity, server_id, body: { 'os-stop': null } };
  // Followed before the command is published, so that no update is missed.
  const ended = await untilFinal(`server.${server_id}`);
  const answer = await client.call(action, { messageId });
  print(answer);
  // What is refused has no updates, and a repeated message id has none again.
  if (answer.code === 200) await Promise.race([ended.promise, sleep(LIMIT)]);
}

async function order() {
  const text = JSON.parse(await readFile(words[0], 'utf8'));
  const ended = await untilFinal(`order.${text.orderId}`);
  await client.submitOrder(text);
  await Promise.race([ended.promise, sleep(LIMIT)]);
}

/** Follows a resource; the promise within resolves at its final update. @param {string} routingKey */
async function untilFinal(routingKey) {
  /** @type {(update: unknown) => void} */
  let resolve = () => {};
  const promise = new Promise((found) => (resolve = found));
  await client.followUpdates(routingKey, async (update) => {
    print({ status: update.status, progress: update.progress, final: update.final });
    if (update.final) resolve(update);
  });
  return { promise };
}

async function results() {
  let left = Number(words[0] ?? Infinity);
  await new Promise((resolve) => {
    client.consumeOrderResults(async (result) => {
      // Write it to your database here. When this function has ended, the result is acked.
      print({ code: result.code, orderId: result.data.orderId ?? result.data.flowId });
      left -= 1;
      if (left === 0) setTimeout(resolve, 500);
    });
  });
}

const commands = { servers, stop, order, results };
await commands[/** @type {keyof typeof commands} */ (command)]();
await client.close();
process.exit();
