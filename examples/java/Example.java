import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import ecs.models.PowerOptions;
import ecs.models.ServerAction;
import ecs.models.ServerActionBody;
import ecs.models.ServerList;
import ecs.models.ServerPage;
import ecs.models.StatusUpdate;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Example servers | stop SERVER [MESSAGE_ID] | order FILE | results [NUMBER] */
public final class Example {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration TIMEOUT = Duration.ofSeconds(35);
    /** Seconds, for what has no end. */
    private static final long LIMIT = Long.parseLong(setting("ECS_WAIT", "600"));

    public static void main(String[] words) throws Exception {
        String url = setting("ECS_URL", "amqp://guest:guest@127.0.0.1:5672");
        try (EcsClient client = new EcsClient(url, "ecs")) {
            switch (words[0]) {
                case "servers" -> servers(client);
                case "stop" -> stop(client, words[1], words.length > 2 ? words[2] : UUID.randomUUID().toString());
                case "order" -> order(client, Files.readAllBytes(Path.of(words[1])));
                case "results" -> results(client, words.length > 1 ? Integer.parseInt(words[1]) : Integer.MAX_VALUE);
                default -> throw new IllegalArgumentException(words[0]);
            }
        }
    }

    private static void servers(EcsClient client) throws Exception {
        ServerList list = new ServerList();
        // Who asks: a token and its user; or a tenant's name, where the worker trusts its publishers.
        list.setTenantId(setting("ECS_TENANT", null));
        list.setUserId(setting("ECS_USER", null));
        list.setToken(setting("ECS_TOKEN", null));
        list.setPageNo(1);
        list.setPageSize(10);
        JsonNode answer = client.call(list.getOperation(), list, UUID.randomUUID().toString(), TIMEOUT);
        if (answer.get("code").asInt() != 200) throw new IllegalStateException(answer.toString());
        ServerPage page = JSON.treeToValue(answer.get("data"), ServerPage.class);
        print("code", answer.get("code"), "total", page.getTotalCount(), "names",
                page.getServers().stream().map(server -> server.getName()).toList());
    }

    private static void stop(EcsClient client, String serverId, String messageId) throws Exception {
        ServerActionBody body = new ServerActionBody();
        body.setOsMinusStop(new PowerOptions()); // {"os-stop": {}}
        ServerAction action = new ServerAction();
        action.setTenantId(setting("ECS_TENANT", null));
        action.setUserId(setting("ECS_USER", null));
        action.setToken(setting("ECS_TOKEN", null));
        action.setServerId(serverId);
        action.setBody(body);
        // Followed before the command is published, so that no update is missed.
        CountDownLatch ended = untilFinal(client, "server." + serverId);
        JsonNode answer = client.call(action.getOperation(), action, messageId, TIMEOUT);
        System.out.println(answer);
        // What is refused has no updates, and a repeated message id has none again.
        if (answer.get("code").asInt() == 200) ended.await(LIMIT, TimeUnit.SECONDS);
    }

    private static void order(EcsClient client, byte[] order) throws Exception {
        CountDownLatch ended = untilFinal(client, "order." + JSON.readTree(order).get("orderId").asText());
        client.submitOrder(order);
        ended.await(LIMIT, TimeUnit.SECONDS);
    }

    private static void results(EcsClient client, int number) throws Exception {
        CountDownLatch left = new CountDownLatch(number);
        client.consumeOrderResults(
                result -> {
                    // Write it to your database here. When this returns, the result is acked.
                    JsonNode data = result.get("data");
                    print("code", result.get("code"), "orderId", data.has("orderId") ? data.get("orderId") : data.get("flowId"));
                    left.countDown();
                });
        left.await();
        Thread.sleep(500); // the last one's ack
    }

    private static CountDownLatch untilFinal(EcsClient client, String routingKey) throws Exception {
        CountDownLatch ended = new CountDownLatch(1);
        client.followUpdates(
                routingKey,
                (StatusUpdate update) -> {
                    print("status", update.getStatus(), "progress", update.getProgress(), "final", update.getReservedFinal());
                    if (update.getReservedFinal()) ended.countDown();
                });
        return ended;
    }

    private static void print(Object... pairs) throws Exception {
        Map<String, Object> line = new LinkedHashMap<>();
        for (int at = 0; at < pairs.length; at += 2) {
            if (pairs[at + 1] != null) line.put((String) pairs[at], pairs[at + 1]);
        }
        System.out.println(JSON.writeValueAsString(line));
    }

    private static String setting(String name, String otherwise) {
        String found = System.getenv(name);
        return found == null || found.isEmpty() ? otherwise : found;
    }
}
