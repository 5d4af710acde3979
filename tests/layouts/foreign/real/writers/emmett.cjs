const { getPostgreSQLEventStore } = require('@event-driven-io/emmett-postgresql');
const { streams, tell } = require('./story.cjs');

const store = getPostgreSQLEventStore(process.env.DATABASE_URL);

const recorded = ({ type, data, metadata }) => {
  const { messageId, streamName, streamPosition, globalPosition, ...own } = metadata;
  return { stream: streamName, version: streamPosition, global: globalPosition, id: messageId, type, data, metadata: own };
};

tell({
  append: (step, count) =>
    store.appendToStream(`${step.category}-${step.id}`, step.events, { expectedStreamVersion: BigInt(count) }),
  stored: async () => (await Promise.all(streams('-').map((name) => store.readStream(name))))
    .flatMap((read) => read.events.map(recorded))
    .sort((a, b) => Number(a.global - b.global)),
  consumers: async () => {
    const consumer = store.consumer();
    let last;
    consumer.reactor({
      processorId: 'reader',
      eachMessage: ({ metadata }) => { last = metadata.globalPosition; },
      stopAfter: ({ metadata }) => metadata.globalPosition === 3n,
    });
    await consumer.start();
    await consumer.close();
    return { reader: last };
  },
  close: () => store.close(),
});
