//! Lanes as topics under the lanes' names: made, measured, deleted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use windlass_core::{Lane, QueueName};

use super::DEADLINE;
use super::address::Address;
use super::aside::Aside;
use super::health::{Health, Watched};
use super::login;
use super::problem::Problem;

/// Never joins the group it is for.
type Observer = Arc<Aside<BaseConsumer<Watched>>>;

pub(super) struct Lanes {
    address: Arc<Address>,
    health: Arc<Health>,
    /// Lanes known to exist. The lock is never held across an await.
    known: Mutex<HashSet<Lane>>,
    /// One for each queue whose depth was asked for, since a client is bound to its group, and one without group.
    observers: Mutex<HashMap<Option<QueueName>, Observer>>,
    /// The library's clients.
    ending: TaskTracker,
}

/// The offsets of one partition.
pub(super) struct Extent {
    pub(super) partition: i32,
    /// All messages below are settled.
    pub(super) committed: i64,
    pub(super) end: i64,
}

impl Lanes {
    pub(super) fn new(address: Arc<Address>, health: Arc<Health>, ending: TaskTracker) -> Self {
        Self { address, health, known: Mutex::default(), observers: Mutex::default(), ending }
    }

    /// Sees to it that `lanes` exist, asking the brokers once for each. Answers with those that do not, and why.
    pub(super) async fn ensure(&self, lanes: &[Lane]) -> HashMap<Lane, Problem> {
        let missing: Vec<Lane> = {
            let known = self.known();
            lanes.iter().filter(|lane| !known.contains(*lane)).cloned().collect()
        };
        if missing.is_empty() {
            return HashMap::new();
        }
        let made = self.make(&missing).await;
        made.into_iter().filter_map(|(lane, made)| Some((lane, made.err()?))).collect()
    }

    /// Makes those of `lanes` that do not exist. For each whether it had to be made.
    pub(super) async fn make(&self, lanes: &[Lane]) -> Vec<(Lane, Result<bool, Problem>)> {
        let made = match self.create(lanes).await {
            Ok(made) => lanes.iter().cloned().zip(made).collect(),
            Err(problem) => lanes.iter().map(|lane| (lane.clone(), Err(problem.clone()))).collect::<Vec<_>>(),
        };
        self.known().extend(made.iter().filter(|(_, made)| made.is_ok()).map(|(lane, _)| lane.clone()));
        made
    }

    /// Notes that `lane` is gone.
    pub(super) fn forget(&self, lane: &Lane) {
        self.known().remove(lane);
    }

    async fn create(&self, lanes: &[Lane]) -> Result<Vec<Result<bool, Problem>>, Problem> {
        let names: Vec<String> = lanes.iter().map(ToString::to_string).collect();
        let replication = || TopicReplication::Fixed(self.address.replication);
        let topics: Vec<_> =
            names.iter().map(|name| NewTopic::new(name, self.address.partitions, replication())).collect();
        let admin = self.admin()?;
        let mut made = Vec::with_capacity(lanes.len());
        for result in self.answer(admin.create_topics(&topics, &options())).await? {
            made.push(match result {
                Ok(_) => Ok(true),
                Err((_, Code::TopicAlreadyExists)) => Ok(false),
                // Topics may be made by somebody else for a user who may not.
                Err((name, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed))
                    if self.exists(&name).await =>
                {
                    Ok(false)
                }
                Err((name, code)) => Err(self.health.failure(code, &format!("the topic {name}"))),
            });
        }
        Ok(made)
    }

    async fn exists(&self, name: &str) -> bool {
        let name = name.to_owned();
        let partitions = self.observe(None, move |observer, until| partitions(observer, &name, until)).await;
        partitions.is_ok_and(|partitions| !partitions.is_empty())
    }

    /// Where each partition of `lane` begins to wait, and ends.
    pub(super) async fn extents(&self, lane: &Lane) -> Result<Vec<Extent>, Problem> {
        let name = lane.to_string();
        let find = move |observer: &BaseConsumer<Watched>, until| {
            let found = partitions(observer, &name, until)
                .and_then(|partitions| extents(observer, &name, &partitions, until));
            // Deleted meanwhile.
            if is_unknown(found.as_ref().err()) { Ok(Vec::new()) } else { found }
        };
        self.observe(Some(&lane.queue), find).await
    }

    /// Deletes the topics of `lanes`.
    ///
    /// Those of a queue that somebody subscribes to are emptied instead: a member of the group goes on from the
    /// offset it has reached, and in a topic made anew there would be other messages before it, which it would skip
    /// and commit as settled. In an emptied topic the offsets go on.
    pub(super) async fn delete(&self, lanes: &[Lane]) -> Result<(), Problem> {
        let mut unused: Vec<String> = Vec::new();
        let mut used: Vec<(String, Vec<i32>)> = Vec::new();
        for lane in lanes {
            let name = lane.to_string();
            let look = move |observer: &BaseConsumer<Watched>, until| {
                let partitions = partitions(observer, &name, until)?;
                let forgotten = partitions.is_empty() || forget_offsets(observer, &name, &partitions)?;
                Ok((name, partitions, forgotten))
            };
            match self.observe(Some(&lane.queue), look).await? {
                (_, partitions, _) if partitions.is_empty() => {}
                (name, _, true) => unused.push(name),
                (name, partitions, false) => used.push((name, partitions)),
            }
            self.forget(lane);
        }
        if !unused.is_empty() {
            let names: Vec<&str> = unused.iter().map(String::as_str).collect();
            let admin = self.admin()?;
            for result in self.answer(admin.delete_topics(&names, &options())).await? {
                match result {
                    Ok(_) | Err((_, Code::UnknownTopicOrPartition)) => {}
                    Err((name, code)) => return Err(self.health.failure(code, &format!("the topic {name}"))),
                }
            }
        }
        if !used.is_empty() {
            let mut list = TopicPartitionList::new();
            for (name, partition) in used.iter().flat_map(|(name, all)| all.iter().map(move |p| (name, *p))) {
                list.add_partition_offset(name, partition, Offset::End)
                    .map_err(|error| self.explain(&error))?;
            }
            let admin = self.admin()?;
            let emptied = self.answer(admin.delete_records(&list, &options())).await?;
            for element in emptied.elements() {
                let error = element.error().err();
                if let Some(error) = error.filter(|error| !is_unknown(Some(error))) {
                    return Err(self.explain(&error));
                }
            }
        }
        Ok(())
    }

    /// Whether a broker answers.
    pub(super) async fn ping(&self) -> Result<(), Problem> {
        // A topic that need not exist: without a name the answer would list all of them.
        self.observe(None, |observer, until| observer.fetch_metadata(Some("windlass"), left(until)).map(drop))
            .await
    }

    /// Runs a call that blocks, on a thread for such, with the observer of `queue`.
    async fn observe<T: Send + 'static>(
        &self,
        queue: Option<&QueueName>,
        call: impl FnOnce(&BaseConsumer<Watched>, Instant) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let observer = self.observer(queue)?;
        let used = Arc::clone(&observer);
        let until = Instant::now() + DEADLINE;
        let called = tokio::task::spawn_blocking(move || {
            let result = call(&used, until);
            // Its events are of no use beyond the note that is taken of them, but they would pile up.
            for _ in 0..100 {
                used.poll(Duration::ZERO);
            }
            result
        });
        let problem = match timeout(DEADLINE, called).await {
            Ok(Ok(Ok(value))) => {
                self.health.clear();
                return Ok(value);
            }
            Ok(Ok(Err(error))) => self.explain(&error),
            Ok(Err(_)) => Problem::Outage("a call to the library has failed".into()),
            Err(_) => self.health.explain(Problem::Late),
        };
        // What it knows of the cluster may be outdated.
        self.observers().retain(|_, other| !Arc::ptr_eq(other, &observer));
        Err(self.look_into(problem).await)
    }

    fn observer(&self, queue: Option<&QueueName>) -> Result<Observer, Problem> {
        let mut observers = self.observers();
        if let Some(observer) = observers.get(&queue.cloned()) {
            return Ok(Arc::clone(observer));
        }
        let config = queue.map_or_else(|| self.address.plain(), |queue| self.address.observer(queue));
        let made = config.create_with_context(Watched(Arc::clone(&self.health)));
        let made = made.map_err(|error| Problem::making(&error))?;
        let observer = Arc::new(Aside::new(made, &self.ending));
        observers.insert(queue.cloned(), Arc::clone(&observer));
        Ok(observer)
    }

    /// A client for one request: they are rare.
    fn admin(&self) -> Result<Aside<AdminClient<Watched>>, Problem> {
        let made = self.address.plain().create_with_context(Watched(Arc::clone(&self.health)));
        made.map(|client| Aside::new(client, &self.ending)).map_err(|error| Problem::making(&error))
    }

    async fn answer<T>(&self, request: impl Future<Output = KafkaResult<T>>) -> Result<T, Problem> {
        match timeout(DEADLINE, request).await {
            Ok(Ok(answer)) => {
                self.health.clear();
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.look_into(self.explain(&error)).await),
            Err(_) => Err(self.look_into(self.health.explain(Problem::Late)).await),
        }
    }

    /// Finds out whether what looks like an outage is a login that is missing.
    async fn look_into(&self, problem: Problem) -> Problem {
        if problem.is_config() {
            return problem;
        }
        match login::wanted(&self.address).await {
            Some(wanted) => {
                self.health.found(wanted.clone());
                wanted
            }
            None => problem,
        }
    }

    fn explain(&self, error: &KafkaError) -> Problem {
        let code = match error {
            KafkaError::AdminOp(code) => Some(*code),
            error => error.rdkafka_error_code(),
        };
        match code {
            Some(code) => self.health.failure(code, "the brokers"),
            None => self.health.explain(Problem::Outage(error.to_string())),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Lane>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all clients.
    pub(super) fn close(&self) {
        self.observers().clear();
    }

    fn observers(&self) -> MutexGuard<'_, HashMap<Option<QueueName>, Observer>> {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partitions of a topic, none if there is no such topic.
fn partitions(observer: &BaseConsumer<Watched>, name: &str, until: Instant) -> KafkaResult<Vec<i32>> {
    let metadata = observer.fetch_metadata(Some(name), left(until))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(Vec::new());
    };
    match topic.error().map(Code::from) {
        None => Ok(topic.partitions().iter().map(|partition| partition.id()).collect()),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(Vec::new()),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

fn extents(
    observer: &BaseConsumer<Watched>,
    name: &str,
    partitions: &[i32],
    until: Instant,
) -> KafkaResult<Vec<Extent>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = observer.committed_offsets(list(name, partitions, Offset::Invalid)?, left(until))?;
    // Asked for by the time "end" and the time "beginning".
    let ends = observer.offsets_for_times(list(name, partitions, Offset::End)?, left(until))?;
    let starts = observer.offsets_for_times(list(name, partitions, Offset::Beginning)?, left(until))?;
    let find = |list: &TopicPartitionList, partition| match list.find_partition(name, partition) {
        Some(element) => element.error().map(|()| element.offset().to_raw().unwrap_or(0).max(0)),
        None => Ok(0),
    };
    let extent = |&partition: &i32| {
        // Messages before the start have been deleted.
        let committed = find(&committed, partition)?.max(find(&starts, partition)?);
        Ok(Extent { partition, committed, end: find(&ends, partition)? })
    };
    partitions.iter().map(extent).collect()
}

fn list(name: &str, partitions: &[i32], offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for &partition in partitions {
        list.add_partition_offset(name, partition, offset)?;
    }
    Ok(list)
}

/// Takes back what the group has committed, lest a topic made anew be read from there. `false` if the group has
/// members: only they may commit then.
fn forget_offsets(observer: &BaseConsumer<Watched>, name: &str, partitions: &[i32]) -> KafkaResult<bool> {
    match observer.commit(&list(name, partitions, Offset::Offset(0))?, CommitMode::Sync) {
        Ok(()) => Ok(true),
        // Deleted meanwhile.
        Err(error) if is_unknown(Some(&error)) => Ok(true),
        Err(KafkaError::ConsumerCommit(
            Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress,
        )) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_unknown(error: Option<&KafkaError>) -> bool {
    let code = error.and_then(KafkaError::rdkafka_error_code);
    matches!(code, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE))
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
