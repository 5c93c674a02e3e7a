import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import ecs.models.StatusUpdate;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Collections;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentNavigableMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * A client of ecs-worker on RabbitMQ's own Java client: commands and their answers, orders and their
 * results, status updates. Any number of threads may use it.
 */
public final class EcsClient implements AutoCloseable {
    /** No queue takes the message: no worker has ever declared its queues here. Nothing was done. */
    public static final class Unroutable extends Exception {
        Unroutable(String routingKey) {
            super(routingKey);
        }
    }

    /** No answer in time. The command may have been done: ask again with the same message id. */
    public static final class NoAnswer extends Exception {
        NoAnswer(String messageId) {
            super("no answer to " + messageId);
        }
    }

    /** The connection ended before the broker confirmed or before the answer came. */
    private static final class Lost extends IOException {
        Lost(String message) {
            super(message);
        }
    }

    /** Handles a message; what it throws makes the message come again. */
    public interface Handler<T> {
        void handle(T body) throws Exception;
    }

    private final ConnectionFactory factory = new ConnectionFactory();
    private final ObjectMapper json =
            new ObjectMapper().disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);
    private final String namespace;
    private volatile boolean isClosed;
    private Link link;

    public EcsClient(String url, String namespace) throws Exception {
        factory.setUri(url.replaceFirst("(?<=\\d)//$", "/%2F")); // Python's way to write the virtual host /
        // After a disconnect, unanswered commands are published again, which the library's own
        // recovery would not do: connecting again is done here.
        factory.setAutomaticRecoveryEnabled(false);
        factory.setRequestedHeartbeat(30);
        this.namespace = namespace;
        open();
    }

    /**
     * Publishes a command and returns its envelope: code, message, data.
     *
     * @param command an object of ecs.models, such as ServerAction
     * @param messageId the idempotency key: after a disconnect the command is published again under
     *     the same one, and the worker does it once
     */
    public JsonNode call(String operation, Object command, String messageId, Duration timeout)
            throws NoAnswer, Unroutable, IOException, InterruptedException {
        Instant limit = Instant.now().plus(timeout);
        byte[] body = json.writeValueAsBytes(command);
        // Of this publication alone: its answer is not mistaken for another copy's.
        while (Instant.now().isBefore(limit)) {
            String correlationId = UUID.randomUUID().toString();
            try {
                Link now = open();
                CompletableFuture<JsonNode> answer = now.answer(correlationId);
                BasicProperties properties =
                        properties(messageId)
                                .correlationId(correlationId)
                                .replyTo(now.replyTo)
                                // Past it the worker begins nothing: nobody waits for it then.
                                .headers(Map.of("x-ecs-deadline", limit.getEpochSecond() + 1))
                                .build();
                now.publish(namespace + ".commands", operation, body, properties, limit);
                return now.await(answer, limit);
            } catch (IOException lost) {
                pause();
            } catch (TimeoutException late) {
                break;
            }
        }
        throw new NoAnswer(messageId);
    }

    /**
     * Publishes an order as it is; returns when the broker keeps it. Its idempotency key is its
     * orderId (softDown: flowId), so it may be submitted again whenever that is in doubt.
     */
    public void submitOrder(byte[] order) throws Unroutable, IOException, InterruptedException {
        JsonNode read = json.readTree(order);
        boolean isSoftDown = read.has("instanceList");
        String type = isSoftDown ? "softDown" : read.path("orderType").asText().strip();
        String messageId = "order-" + read.path(isSoftDown ? "flowId" : "orderId").asText();
        while (true) {
            try {
                BasicProperties properties = properties(messageId).build();
                Instant limit = Instant.now().plusSeconds(30);
                open().publish(namespace + ".orders", "order." + type, order, properties, limit);
                return;
            } catch (IOException | TimeoutException lost) {
                pause();
            }
        }
    }

    /**
     * Calls the handler with each result of an order and acks it when the handler has returned. No
     * result is lost; one may come twice.
     */
    public void consumeOrderResults(Handler<JsonNode> handler) throws IOException {
        consume(channel -> namespace + ".order-results", message -> handler.handle(json.readTree(message.getBody())));
    }

    /**
     * Calls the handler with each status update of a routing key: server.ID, order.ORDER_ID, image.#.
     * Updates during a disconnect are missed.
     */
    public void followUpdates(String routingKey, Handler<StatusUpdate> handler) throws IOException {
        // A worker that died may have published an update that the next one publishes again.
        Map<String, Boolean> known =
                new LinkedHashMap<>() {
                    @Override
                    protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
                        return size() > 10_000;
                    }
                };
        consume(
                channel -> {
                    String queue = channel.queueDeclare().getQueue(); // exclusive, with a name of the broker's
                    channel.queueBind(queue, namespace + ".status", routingKey);
                    return queue;
                },
                message -> {
                    if (known.putIfAbsent(message.getProperties().getMessageId(), true) == null) {
                        handler.handle(json.readValue(message.getBody(), StatusUpdate.class));
                    }
                });
    }

    @Override
    public synchronized void close() throws IOException {
        isClosed = true;
        link.connection.close();
    }

    private static BasicProperties.Builder properties(String messageId) {
        return new BasicProperties.Builder()
                .contentType("application/json")
                .deliveryMode(2) // persistent
                .messageId(messageId)
                .timestamp(new Date());
    }

    private static void pause() throws InterruptedException {
        Thread.sleep(ThreadLocalRandom.current().nextInt(100, 500));
    }

    /** The link of now, or a new one where that has ended; IOException where there is no broker. */
    private synchronized Link open() throws IOException {
        if (isClosed) throw new IllegalStateException("the client is closed");
        if (link == null || !link.connection.isOpen() || !link.channel.isOpen()) {
            if (link != null) link.connection.abort();
            try {
                link = new Link(factory.newConnection("ecs-client"));
            } catch (TimeoutException error) {
                throw new IOException(error);
            }
        }
        return link;
    }

    private interface Opening {
        String queueOf(Channel channel) throws IOException;
    }

    /** Begins to consume, on a channel of its own, and begins again after each disconnect. */
    private void consume(Opening opening, Handler<Delivery> handler) throws IOException {
        Channel channel = open().connection.createChannel();
        // Messages are handled one at a time, in their order. More where that is slow.
        channel.basicQos(1);
        channel.addShutdownListener(
                cause -> {
                    if (isClosed) return;
                    Thread again = new Thread(() -> consumeAgain(opening, handler), "consume again");
                    again.setDaemon(true);
                    again.start();
                });
        channel.basicConsume(
                opening.queueOf(channel),
                false,
                (tag, message) -> take(channel, message, handler),
                tag -> abort(channel)); // the queue was deleted: begin again
    }

    private void consumeAgain(Opening opening, Handler<Delivery> handler) {
        while (!isClosed) {
            try {
                pause();
                consume(opening, handler);
                return;
            } catch (IOException error) {
                System.err.println("no broker yet: " + error);
            } catch (InterruptedException error) {
                return;
            }
        }
    }

    /** Acks a message when it has been handled; one that was not comes again. */
    private static void take(Channel channel, Delivery message, Handler<Delivery> handler) throws IOException {
        long tag = message.getEnvelope().getDeliveryTag();
        try {
            handler.handle(message);
        } catch (Exception error) {
            System.err.println("not handled, comes again: " + error);
            channel.basicNack(tag, false, true);
            return;
        }
        channel.basicAck(tag, false); // where the channel has ended, the broker delivers it again
    }

    private static void abort(Channel channel) throws IOException {
        channel.abort();
    }

    /** A connection with a channel in confirm mode and a reply queue. What waits for it ends with it. */
    private final class Link {
        final Connection connection;
        final Channel channel;
        final String replyTo;
        private final ConcurrentNavigableMap<Long, CompletableFuture<Void>> confirms = new ConcurrentSkipListMap<>();
        private final Map<String, CompletableFuture<JsonNode>> answers = new ConcurrentHashMap<>();
        /** Message ids that the broker gave back; it confirms them afterwards. */
        private final Set<String> returned = Collections.newSetFromMap(new ConcurrentHashMap<>());

        Link(Connection connection) throws IOException {
            this.connection = connection;
            channel = connection.createChannel();
            channel.confirmSelect();
            channel.addConfirmListener(
                    (number, multiple) -> settle(number, multiple, null),
                    (number, multiple) -> settle(number, multiple, new Lost("the broker refused it for now")));
            channel.addReturnListener(back -> returned.add(back.getProperties().getMessageId()));
            channel.addShutdownListener(cause -> end());
            replyTo = channel.queueDeclare().getQueue();
            channel.basicConsume(replyTo, true, (tag, message) -> hear(message), tag -> abort(channel));
        }

        CompletableFuture<JsonNode> answer(String correlationId) {
            CompletableFuture<JsonNode> answer = new CompletableFuture<>();
            answers.put(correlationId, answer);
            answer.whenComplete((found, error) -> answers.remove(correlationId));
            return answer;
        }

        /** Returns when the broker has confirmed: the message is on disk in a queue. */
        void publish(String exchange, String routingKey, byte[] body, BasicProperties properties, Instant limit)
                throws Unroutable, IOException, InterruptedException, TimeoutException {
            CompletableFuture<Void> confirmed = new CompletableFuture<>();
            synchronized (this) { // numbers are given in the order of publishing
                confirms.put(channel.getNextPublishSeqNo(), confirmed);
                boolean mandatory = true; // given back, not dropped, where no queue takes it
                channel.basicPublish(exchange, routingKey, mandatory, properties, body);
            }
            await(confirmed, limit);
            if (returned.remove(properties.getMessageId())) throw new Unroutable(routingKey);
        }

        <T> T await(CompletableFuture<T> future, Instant limit) throws IOException, InterruptedException, TimeoutException {
            if (!channel.isOpen()) end(); // it ended before the future was made known
            try {
                return future.get(Math.max(1, Duration.between(Instant.now(), limit).toMillis()), TimeUnit.MILLISECONDS);
            } catch (ExecutionException error) {
                throw new Lost(error.getCause().getMessage());
            } finally {
                future.cancel(false);
            }
        }

        private void hear(Delivery message) throws IOException {
            CompletableFuture<JsonNode> answer = answers.get(message.getProperties().getCorrelationId());
            if (answer != null) answer.complete(json.readTree(message.getBody()));
        }

        private void settle(long number, boolean multiple, Lost error) {
            Map<Long, CompletableFuture<Void>> settled =
                    multiple ? confirms.headMap(number, true) : confirms.subMap(number, true, number, true);
            settled.values().forEach(one -> finish(one, error));
            settled.clear();
        }

        private void finish(CompletableFuture<Void> one, Lost error) {
            if (error == null) one.complete(null);
            else one.completeExceptionally(error);
        }

        private void end() {
            Lost lost = new Lost("the connection ended");
            confirms.values().forEach(one -> one.completeExceptionally(lost));
            answers.values().forEach(one -> one.completeExceptionally(lost));
        }
    }
}
