//! cqrs-es: two types of aggregates, whose events are variants of an enum.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, EventStore};
use postgres_es::PostgresEventRepository;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Pool, Postgres};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Happened {
    Opened(Value),
    ItemAdded(Value),
    Placed(Value),
    Lost(Value),
    CheckedOut(Value),
}

impl DomainEvent for Happened {
    fn event_type(&self) -> String {
        format!("{self:?}").split('(').next().unwrap().into()
    }
    fn event_version(&self) -> String {
        "1.0".into()
    }
}

#[derive(Debug)]
struct Never;

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "never")
    }
}

impl std::error::Error for Never {}

#[derive(Default, Serialize, Deserialize)]
struct Told<const CART: bool> {}

#[async_trait]
impl<const CART: bool> Aggregate for Told<CART> {
    type Command = Vec<Happened>;
    type Event = Happened;
    type Error = Never;
    type Services = ();

    fn aggregate_type() -> String {
        if CART { "cart" } else { "order" }.into()
    }
    async fn handle(&self, command: Vec<Happened>, _: &()) -> Result<Vec<Happened>, Never> {
        Ok(command)
    }
    fn apply(&mut self, _: Happened) {}
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    data: Value,
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Step {
    category: String,
    id: String,
    #[serde(default)]
    stale: bool,
    events: Vec<Event>,
}

/// Returns how many appends were refused, and the events that can be read then.
async fn tell<const CART: bool>(pool: &Pool<Postgres>, story: &[Step]) -> (usize, Vec<Value>) {
    let name = Told::<CART>::aggregate_type();
    let repository = PostgresEventRepository::new(pool.clone());
    let store = PersistedEventStore::<_, Told<CART>>::new_event_store(repository);
    let mut refused = 0;
    let mut before = HashMap::new();
    for step in story.iter().filter(|step| step.category == name) {
        let now = store.load_aggregate(&step.id).await.unwrap();
        let context = if step.stale {
            before.remove(&step.id).unwrap()
        } else {
            before.insert(&step.id, store.load_aggregate(&step.id).await.unwrap());
            now
        };
        let happened = step
            .events
            .iter()
            .map(|event| serde_json::from_value(json!({ (event.r#type.as_str()): event.data })).unwrap());
        let written = store
            .commit(happened.collect(), context, step.events[0].metadata.clone())
            .await;
        assert_eq!(written.is_err(), step.stale);
        refused += written.is_err() as usize;
    }
    let mut events = vec![];
    for id in before.keys() {
        events.extend(
            store
                .load_events(id)
                .await
                .unwrap()
                .into_iter()
                .map(|event| recorded(&name, event)),
        );
    }
    (refused, events)
}

fn recorded<A: Aggregate<Event = Happened>>(name: &str, event: EventEnvelope<A>) -> Value {
    let kind = event.payload.event_type();
    json!({
        "stream": format!("{name}/{}", event.aggregate_id),
        "version": event.sequence,
        "data": serde_json::to_value(&event.payload).unwrap()[&kind],
        "type": kind,
        "metadata": event.metadata,
    })
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let story: Vec<Step> = serde_json::from_slice(&std::fs::read(arguments.next().unwrap()).unwrap()).unwrap();
    let pool = Pool::connect_with(PgConnectOptions::new()).await.unwrap(); // the environment says where
                                                                           // The crate has the statements, and after them those of its own tests.
    let statements = std::fs::read_to_string(arguments.next().unwrap()).unwrap();
    for statement in statements.split(';').take(2) {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let (refused, mut events) = tell::<true>(&pool, &story).await;
    let (refused_too, more) = tell::<false>(&pool, &story).await;
    events.extend(more);
    println!("{}", json!({ "refused": refused + refused_too, "events": events }));
}
