// @ts-check
// A client of ecs-worker over AMQP: commands and their answers, orders and their results, status updates.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import amqp from 'amqplib';

/** No queue takes the message: no worker has ever declared its queues here. Nothing was done. */
export class Unroutable extends Error {}

/** No answer in time. The command may have been done: ask again with the same message id. */
export class NoAnswer extends Error {}

/** The connection ended before the broker confirmed or before the answer came. */
class Lost extends Error {}

export class EcsClient {
  #connection;
  #namespace;
  /** @type {Promise<Link> | undefined} the channel of now; a new one after a disconnect */
  #link;
  #isClosed = false;

  /** @param {amqp.RecoveringChannelModel} connection @param {string} namespace */
  constructor(connection, namespace) {
    this.#connection = connection;
    this.#namespace = namespace;
  }

  /** Connects, and from then on connects again whenever the connection ends.
   *  @param {string} url */
  static async connect(url, namespace = 'ecs') {
    const recovery = { initialDelay: 200, maxDelay: 10_000, jitter: 0.5, initialMaxRetries: 3 };
    const connection = await amqp.connect(url, { recovery });
    // Without a listener, Node would end the process. The new connection comes all the same.
    connection.on('error', (error) => console.error(`broker: ${error.message}`));
    return new EcsClient(connection, namespace);
  }

  async close() {
    this.#isClosed = true;
    await this.#connection.close();
  }

  /** Publishes a command and returns its envelope. `messageId` is the idempotency key: after a
   *  disconnect the command is published again under the same one, and the worker does it once.
   *  @template {{operation: string}} Command
   *  @param {Command} command @param {{messageId?: string, timeout?: number}} [options] timeout in ms
   *  @returns {Promise<{code: number | string, message: string, data: any}>} */
  async call(command, { messageId = randomUUID(), timeout = 35_000 } = {}) {
    const limit = Date.now() + timeout;
    const late = AbortSignal.timeout(timeout);
    const attempt = async () => {
      const link = await this.#open();
      const properties = {
        messageId,
        correlationId: randomUUID(), // of this publication alone: its answer is not another copy's
        replyTo: link.replyTo,
        headers: { 'x-ecs-deadline': Math.ceil(limit / 1000) }, // later nobody waits for it
      };
      const exchange = `${this.#namespace}.commands`;
      const [answer] = await Promise.all([
        link.answer(properties.correlationId, late),
        link.publish(exchange, command.operation, command, properties),
      ]);
      return answer;
    };
    const none = new Promise((_, reject) => {
      late.addEventListener('abort', () => reject(new NoAnswer(`no answer to ${messageId}`)));
    });
    return Promise.race([untilNotLost(attempt, limit), none]);
  }

  /** Publishes an order; returns when the broker keeps it. Its idempotency key is its `orderId`
   *  (softDown: `flowId`), so it may be submitted again whenever that is in doubt.
   *  @param {any} order the billing system's message, as it is */
  async submitOrder(order) {
    const type = order.instanceList ? 'softDown' : order.orderType.trim();
    const messageId = `order-${order.orderId ?? order.flowId}`;
    await untilNotLost(async () => {
      const link = await this.#open();
      await link.publish(`${this.#namespace}.orders`, `order.${type}`, order, { messageId });
    });
  }

  /** Calls `handle` with each result of an order, and acks it when `handle` has ended. No result is
   *  lost; one may come twice.
   *  @param {(result: any) => Promise<void>} handle */
  async consumeOrderResults(handle) {
    await this.#consume(async () => `${this.#namespace}.order-results`, handle);
  }

  /** Calls `handle` with each status update of a routing key: `server.<id>`, `order.<orderId>`,
   *  `image.#`. Updates during a disconnect are missed.
   *  @param {string} routingKey
   *  @param {(update: import('./models/StatusUpdate').StatusUpdate) => Promise<void>} handle */
  async followUpdates(routingKey, handle) {
    const known = new Set();
    /** @param {amqp.Channel} channel */
    const open = async (channel) => {
      const { queue } = await channel.assertQueue('', { exclusive: true, autoDelete: true, durable: false });
      await channel.bindQueue(queue, `${this.#namespace}.status`, routingKey);
      return queue;
    };
    await this.#consume(open, async (update, messageId) => {
      // A worker that died may have published an update that the next one publishes again.
      if (known.has(messageId)) return;
      known.add(messageId);
      if (known.size > 10_000) known.delete(known.values().next().value);
      await handle(update);
    });
  }

  /** Returns when the broker has begun to deliver, and begins again after each disconnect.
   *  @param {(channel: amqp.Channel) => Promise<string>} open returns the queue's name
   *  @param {(body: any, messageId: string) => Promise<void>} handle */
  async #consume(open, handle) {
    const begin = async () => {
      const link = await this.#open();
      try {
        await link.consume(await open(link.channel), handle);
      } catch (error) {
        throw new Lost('not begun', { cause: error });
      }
      return link;
    };
    const goOn = async (/** @type {Link} */ link) => {
      for (;;) {
        await link.ended;
        if (this.#isClosed) return;
        link = await untilNotLost(begin);
      }
    };
    goOn(await untilNotLost(begin)).catch((error) => console.error(`consumer ended: ${error.message}`));
  }

  /** The link of now, or a new one where that has ended; waits for the broker.
   *  @returns {Promise<Link>} */
  async #open() {
    const opening = (this.#link ??= Link.open(this.#connection));
    try {
      const link = await opening;
      if (link.isOpen) return link;
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
    }
    if (this.#link === opening) this.#link = undefined;
    await sleep(100 + Math.random() * 400);
    return this.#open();
  }
}

/** Repeats what was cut off by a disconnect.
 *  @template T @param {() => Promise<T>} attempt @param {number} limit ms since 1970
 *  @returns {Promise<T>} */
async function untilNotLost(attempt, limit = Infinity) {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Lost) || Date.now() > limit) throw error;
      await sleep(100 + Math.random() * 400);
    }
  }
}

/** One channel in confirm mode, with a reply queue of its own. What waits for it ends with it. */
class Link {
  replyTo = '';
  isOpen = true;
  /** @type {Promise<void>} resolved when the channel or its connection has ended */
  ended;
  /** @type {Map<string, (envelope: any) => void>} who waits for an answer, by correlation id */
  #waiting = new Map();
  /** @type {Set<string>} message ids that the broker gave back; it confirms them afterwards */
  #returned = new Set();

  /** @param {amqp.ConfirmChannel} channel */
  constructor(channel) {
    this.channel = channel;
    this.ended = new Promise((resolve) => channel.once('close', resolve)).then(() => {
      this.isOpen = false;
    });
    channel.on('error', (error) => console.error(`channel: ${error.message}`));
    channel.on('return', (message) => this.#returned.add(message.properties.messageId));
  }

  /** @param {amqp.RecoveringChannelModel} connection */
  static async open(connection) {
    try {
      const channel = await connection.createConfirmChannel(); // waits for the connection
      const link = new Link(channel);
      // Messages are handled one at a time, in their order. More where that is slow and order is nothing.
      await channel.prefetch(1);
      const queue = await channel.assertQueue('', { exclusive: true, autoDelete: true, durable: false });
      link.replyTo = queue.queue;
      await channel.consume(link.replyTo, (message) => link.#take(message), { noAck: true });
      return link;
    } catch (error) {
      throw new Lost('the connection ended', { cause: error });
    }
  }

  /** @param {amqp.ConsumeMessage | null} message */
  #take(message) {
    const waiting = message && this.#waiting.get(message.properties.correlationId);
    if (waiting) waiting(JSON.parse(message.content.toString()));
  }

  /** Resolves when the broker has confirmed: the message is on disk in a queue.
   *  @param {string} exchange @param {string} routingKey @param {object} body
   *  @param {amqp.Options.Publish} properties */
  async publish(exchange, routingKey, body, properties) {
    const content = Buffer.from(JSON.stringify(body));
    const options = {
      contentType: 'application/json',
      persistent: true,
      mandatory: true, // give it back rather than drop it where no queue takes it
      timestamp: Math.floor(Date.now() / 1000),
      ...properties,
    };
    await new Promise((resolve, reject) => {
      if (!this.isOpen) return reject(new Lost('the connection ended'));
      this.channel.publish(exchange, routingKey, content, options, (error) => {
        // A channel that closes calls this with an error; so does a nack, which only means "not now".
        if (error) reject(new Lost('not confirmed', { cause: error }));
        else if (this.#returned.delete(String(properties.messageId))) reject(new Unroutable(routingKey));
        else resolve(undefined);
      });
    });
  }

  /** @param {string} correlationId @param {AbortSignal} late @returns {Promise<any>} the envelope */
  answer(correlationId, late) {
    return new Promise((resolve, reject) => {
      this.#waiting.set(correlationId, resolve);
      this.ended.then(() => reject(new Lost('the connection ended')));
      late.addEventListener('abort', () => reject(new Lost('too late')));
    }).finally(() => this.#waiting.delete(correlationId));
  }

  /** Acks each message when it has been handled; one that was not comes again.
   *  @param {string} queue @param {(body: any, messageId: string) => Promise<void>} handle */
  async consume(queue, handle) {
    const take = async (/** @type {amqp.ConsumeMessage | null} */ message) => {
      if (message === null) return this.channel.close(); // the queue was deleted: begin again
      let isHandled = true;
      try {
        await handle(JSON.parse(message.content.toString()), message.properties.messageId);
      } catch (error) {
        console.error(`not handled, comes again: ${error}`);
        isHandled = false;
        await sleep(5_000);
      }
      try {
        if (isHandled) this.channel.ack(message);
        else this.channel.nack(message);
      } catch {
        // The connection has ended meanwhile: the broker delivers the message again.
      }
    };
    await this.channel.consume(queue, take);
  }
}
