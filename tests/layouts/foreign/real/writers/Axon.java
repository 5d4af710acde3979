import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.axonframework.common.transaction.NoTransactionManager;
import org.axonframework.common.transaction.Transaction;
import org.axonframework.common.transaction.TransactionManager;
import org.axonframework.eventhandling.DomainEventMessage;
import org.axonframework.eventhandling.GapAwareTrackingToken;
import org.axonframework.eventhandling.GenericDomainEventMessage;
import org.axonframework.eventhandling.TrackedEventMessage;
import org.axonframework.eventhandling.tokenstore.TokenStore;
import org.axonframework.eventhandling.tokenstore.jdbc.JdbcTokenStore;
import org.axonframework.eventhandling.tokenstore.jdbc.PostgresTokenTableFactory;
import org.axonframework.eventhandling.tokenstore.jpa.JpaTokenStore;
import org.axonframework.eventhandling.tokenstore.jpa.TokenEntry;
import org.axonframework.eventsourcing.eventstore.EventStorageEngine;
import org.axonframework.eventsourcing.eventstore.jdbc.JdbcEventStorageEngine;
import org.axonframework.eventsourcing.eventstore.jdbc.PostgresEventTableFactory;
import org.axonframework.eventsourcing.eventstore.jpa.DomainEventEntry;
import org.axonframework.eventsourcing.eventstore.jpa.JpaEventStorageEngine;
import org.axonframework.eventsourcing.eventstore.jpa.SnapshotEventEntry;
import org.axonframework.messaging.MetaData;
import org.axonframework.serialization.json.JacksonSerializer;
import org.hibernate.boot.model.naming.CamelCaseToUnderscoresNamingStrategy;
import org.hibernate.cfg.Configuration;
import org.postgresql.ds.PGSimpleDataSource;

/** Axon Framework 4 by JDBC or by JPA: the classes of events are those of the story, each as JSON. */
public class Axon {
    public static class Opened extends LinkedHashMap<String, Object> {}

    public static class ItemAdded extends LinkedHashMap<String, Object> {}

    public static class Placed extends LinkedHashMap<String, Object> {}

    public static class Lost extends LinkedHashMap<String, Object> {}

    public static class CheckedOut extends LinkedHashMap<String, Object> {}

    record Event(String type, Map<String, Object> data, Map<String, Object> metadata) {}

    record Step(String category, String id, boolean stale, List<Event> events) {}

    public static void main(String[] arguments) throws Exception {
        var json = new ObjectMapper();
        var url = "jdbc:postgresql://127.0.0.1:" + System.getenv("PGTCP") + "/" + System.getenv("PGDATABASE");
        var serializer = JacksonSerializer.builder().classLoader(Axon.class.getClassLoader()).build();
        final EventStorageEngine store;
        final TokenStore tokens;
        final TransactionManager within;
        if (arguments[1].equals("jdbc")) {
            var database = new PGSimpleDataSource();
            database.setURL(url);
            database.setUser(System.getenv("PGUSER"));
            var engine = JdbcEventStorageEngine.builder()
                .connectionProvider(database::getConnection)
                .transactionManager(NoTransactionManager.INSTANCE)
                .eventSerializer(serializer)
                .snapshotSerializer(serializer)
                .build();
            engine.createSchema(PostgresEventTableFactory.INSTANCE);
            store = engine;
            var kept = JdbcTokenStore.builder().connectionProvider(database::getConnection).serializer(serializer).build();
            kept.createSchema(PostgresTokenTableFactory.INSTANCE);
            tokens = kept;
            within = NoTransactionManager.INSTANCE;
        } else {
            // The names are those that Spring gives tables and columns.
            var entities = new Configuration()
                .addAnnotatedClass(DomainEventEntry.class)
                .addAnnotatedClass(SnapshotEventEntry.class)
                .addAnnotatedClass(TokenEntry.class)
                .setPhysicalNamingStrategy(new CamelCaseToUnderscoresNamingStrategy())
                .setProperty("hibernate.connection.url", url)
                .setProperty("hibernate.connection.username", System.getenv("PGUSER"))
                .setProperty("hibernate.hbm2ddl.auto", "create")
                .buildSessionFactory()
                .createEntityManager();
            TransactionManager transactions = () -> {
                entities.getTransaction().begin();
                return new Transaction() {
                    public void commit() {
                        entities.getTransaction().commit();
                    }

                    public void rollback() {
                        entities.getTransaction().rollback();
                        entities.clear();
                    }
                };
            };
            store = JpaEventStorageEngine.builder()
                .entityManagerProvider(() -> entities)
                .transactionManager(transactions)
                .eventSerializer(serializer)
                .snapshotSerializer(serializer)
                .build();
            tokens = JpaTokenStore.builder().entityManagerProvider(() -> entities).serializer(serializer).build();
            within = transactions;
        }

        var counts = new HashMap<String, Integer>();
        var refused = 0;
        for (var step : json.readValue(Path.of(arguments[0]).toFile(), Step[].class)) {
            var first = counts.getOrDefault(step.id(), 0) - (step.stale() ? 1 : 0);
            var messages = new ArrayList<DomainEventMessage<?>>();
            for (var event : step.events()) {
                var payload = json.convertValue(event.data(), Class.forName("Axon$" + event.type()));
                messages.add(new GenericDomainEventMessage<>(
                    step.category(), step.id(), first + messages.size(), payload, MetaData.from(event.metadata())));
            }
            try {
                store.appendEvents(messages);
                counts.put(step.id(), first + messages.size());
            } catch (RuntimeException taken) {
                if (!step.stale()) throw taken;
                refused++;
            }
        }

        var read = new ArrayList<TrackedEventMessage<?>>(store.readEvents(null, false).toList());
        within.executeInTransaction(() -> tokens.initializeTokenSegments("reader", 1));
        within.executeInTransaction(() -> {
            tokens.fetchToken("reader", 0);
            tokens.storeToken(read.get(2).trackingToken(), "reader", 0);
        });

        System.out.println(json.writeValueAsString(Map.of(
            "refused", refused,
            "events", read.stream().map(Axon::recorded).toList(),
            "consumers", Map.of("reader", index(read.get(2))))));
    }

    private static long index(TrackedEventMessage<?> event) {
        return ((GapAwareTrackingToken) event.trackingToken()).getIndex();
    }

    private static Map<String, Object> recorded(TrackedEventMessage<?> tracked) {
        var event = (DomainEventMessage<?>) tracked;
        return Map.of(
            "stream", event.getAggregateIdentifier(),
            "version", event.getSequenceNumber(),
            "global", index(tracked),
            "id", event.getIdentifier(),
            "type", event.getPayloadType().getName(),
            "data", event.getPayload(),
            "metadata", event.getMetaData(),
            "at", event.getTimestamp().toString());
    }
}
