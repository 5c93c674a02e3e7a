import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import ecs.models.StatusUpdate;
import java.io.IOException;
import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.springframework.amqp.AmqpException;
import org.springframework.amqp.core.AmqpMessageReturnedException;
import org.springframework.amqp.core.AnonymousQueue;
import org.springframework.amqp.core.BindingBuilder;
import org.springframework.amqp.core.Message;
import org.springframework.amqp.core.MessageDeliveryMode;
import org.springframework.amqp.core.MessageProperties;
import org.springframework.amqp.core.Queue;
import org.springframework.amqp.core.TopicExchange;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory;
import org.springframework.amqp.rabbit.connection.CorrelationData;
import org.springframework.amqp.rabbit.core.RabbitAdmin;
import org.springframework.amqp.rabbit.core.RabbitTemplate;
import org.springframework.amqp.rabbit.listener.DirectMessageListenerContainer;

/**
 * A client of ecs-worker on Spring AMQP: commands and their answers, orders and their results, status
 * updates. Any number of threads may use it. In an application, its parts are beans.
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

    /** Handles a message; what it throws makes the message come again. */
    public interface Handler<T> {
        void handle(T body) throws Exception;
    }

    private final ObjectMapper json =
            new ObjectMapper().disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);
    private final String namespace;
    /** Beside an application context the connection factory's own threads keep the program alive. */
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final CachingConnectionFactory connections;
    private final RabbitTemplate template;
    private final RabbitAdmin admin;
    private final List<DirectMessageListenerContainer> consumers = new CopyOnWriteArrayList<>();

    public EcsClient(String url, String namespace) {
        this.namespace = namespace;
        URI uri = URI.create(url.replaceFirst("(?<=\\d)//$", "/%2F")); // Python's way to write the virtual host /
        connections = new CachingConnectionFactory(uri); // connects again by itself
        connections.setExecutor(threads);
        connections.setPublisherConfirmType(CachingConnectionFactory.ConfirmType.CORRELATED);
        connections.setPublisherReturns(true);
        template = new RabbitTemplate(connections);
        template.setMandatory(true); // given back, not dropped, where no queue takes it
        template.setReplyTimeout(10_000); // ms, of one publication: see call
        admin = new RabbitAdmin(connections);
        admin.setRedeclareManualDeclarations(true); // queues of updates, after a disconnect
        admin.afterPropertiesSet();
    }

    /**
     * Publishes a command and returns its envelope: code, message, data.
     *
     * @param command an object of ecs.models, such as ServerAction
     * @param messageId the idempotency key: where no answer came, the command is published again
     *     under the same one, and the worker does it once
     */
    public JsonNode call(String operation, Object command, String messageId, Duration timeout)
            throws NoAnswer, Unroutable, IOException, InterruptedException {
        Instant limit = Instant.now().plus(timeout);
        byte[] body = json.writeValueAsBytes(command);
        while (Instant.now().isBefore(limit)) {
            MessageProperties properties = properties(messageId);
            // Past it the worker begins nothing: nobody waits for it then.
            properties.setHeader("x-ecs-deadline", limit.getEpochSecond() + 1);
            try {
                // Direct reply-to and a correlation id are the template's own.
                Message answer =
                        template.sendAndReceive(namespace + ".commands", operation, new Message(body, properties));
                if (answer != null) return json.readTree(answer.getBody());
            } catch (AmqpMessageReturnedException returned) {
                throw new Unroutable(operation);
            } catch (AmqpException lost) {
                pause();
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
            CorrelationData sent = new CorrelationData();
            try {
                Message message = new Message(order, properties(messageId));
                template.send(namespace + ".orders", "order." + type, message, sent);
                boolean isKept = sent.getFuture().get(30, TimeUnit.SECONDS).isAck();
                if (sent.getReturned() != null) throw new Unroutable("order." + type);
                if (isKept) return;
            } catch (AmqpException | ExecutionException | TimeoutException lost) {
                // published once more, under the same message id
            }
            pause();
        }
    }

    /**
     * Calls the handler with each result of an order and acks it when the handler has returned. No
     * result is lost; one may come twice.
     */
    public void consumeOrderResults(Handler<JsonNode> handler) {
        consume(namespace + ".order-results", message -> handler.handle(json.readTree(message.getBody())));
    }

    /**
     * Calls the handler with each status update of a routing key: server.ID, order.ORDER_ID, image.#.
     * Updates during a disconnect are missed.
     */
    public void followUpdates(String routingKey, Handler<StatusUpdate> handler) {
        // A worker that died may have published an update that the next one publishes again.
        Map<String, Boolean> known =
                new LinkedHashMap<>() {
                    @Override
                    protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
                        return size() > 10_000;
                    }
                };
        Queue queue = new AnonymousQueue();
        admin.declareQueue(queue);
        admin.declareBinding(
                BindingBuilder.bind(queue).to(new TopicExchange(namespace + ".status")).with(routingKey));
        consume(
                queue.getName(),
                message -> {
                    if (known.putIfAbsent(message.getMessageProperties().getMessageId(), true) == null) {
                        handler.handle(json.readValue(message.getBody(), StatusUpdate.class));
                    }
                });
    }

    @Override
    public void close() {
        consumers.forEach(DirectMessageListenerContainer::destroy);
        template.destroy();
        connections.destroy();
        threads.shutdown();
    }

    private static MessageProperties properties(String messageId) {
        MessageProperties properties = new MessageProperties();
        properties.setContentType("application/json");
        properties.setDeliveryMode(MessageDeliveryMode.PERSISTENT);
        properties.setMessageId(messageId);
        properties.setTimestamp(new Date());
        return properties;
    }

    private static void pause() throws InterruptedException {
        Thread.sleep(ThreadLocalRandom.current().nextInt(100, 500));
    }

    /** Consumes; the container acks when the listener has returned, and begins again after a disconnect. */
    private void consume(String queue, Handler<Message> handler) {
        DirectMessageListenerContainer container = new DirectMessageListenerContainer(connections);
        container.setQueueNames(queue);
        container.setPrefetchCount(1); // one at a time, in their order; more where that is slow
        container.setFailedDeclarationRetryInterval(500); // ms
        container.setMessageListener(
                message -> {
                    try {
                        handler.handle(message);
                    } catch (Exception error) {
                        throw new IllegalStateException(error); // comes again
                    }
                });
        container.afterPropertiesSet();
        container.start();
        consumers.add(container);
    }
}
