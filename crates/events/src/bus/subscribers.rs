use std::{collections::BTreeMap, sync::Arc};

use super::{Limits, SubscribeError};
use crate::{Attributes, Cancelled, Message, Query, RoundEvent, subscription::Outlet};

/// Thousandths of what may wait with which subscribers are too slow to compare with. More, and there
/// is less time until something is lost; less, and bursts cancel somebody.
const BEHIND: usize = 400;
/// Once some were cancelled, how many thousandths more must wait until others are: what waits by
/// then takes time though they are gone.
const FURTHER: usize = 60;
/// Work that makes a difference, in values compared: a tenth of a second, about. With less, the
/// subscribers are not why much waits.
const MUCH_WORK: u64 = 4 << 20;
/// Those who are left cause at most one of so many parts of the work. More cancels more at once;
/// fewer leaves too much.
const LEFT: u64 = 4;

/// Subscriptions by their query, so that each query is compared once, and by subscriber.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    by_query: BTreeMap<String, OneQuery>,
    /// How many each has.
    pub(super) clients: BTreeMap<String, usize>,
    pub(super) last_id: u64,
    /// How much waited when some were last cancelled for it, while too much waits.
    relieved_at: Option<usize>,
}

#[derive(Debug)]
struct OneQuery {
    query: Query,
    outlets: BTreeMap<String, (u64, Outlet)>,
    /// What comparing it has cost since the last rest.
    work: u64,
}

impl Subscribers {
    pub(super) fn add(
        &mut self,
        key: String,
        query: Query,
        subscriber: &str,
        outlet: (u64, Outlet),
    ) {
        let one = self.by_query.entry(key).or_insert_with(|| OneQuery {
            query,
            outlets: BTreeMap::new(),
            work: 0,
        });
        one.outlets.insert(subscriber.to_owned(), outlet);
        *self.clients.entry(subscriber.to_owned()).or_default() += 1;
    }

    pub(super) fn check(&self, limits: Limits, subscriber: &str) -> Result<(), SubscribeError> {
        if self.clients.len() >= limits.clients {
            return Err(SubscribeError::Clients(limits.clients));
        }
        let own = self.clients.get(subscriber).copied().unwrap_or(0);
        if own >= limits.per_client {
            return Err(SubscribeError::PerClient(limits.per_client));
        }
        Ok(())
    }

    pub(super) fn id_of(&self, query: &str, subscriber: &str) -> Option<u64> {
        let (id, _) = self.by_query.get(query)?.outlets.get(subscriber)?;
        Some(*id)
    }

    pub(super) fn queries_of(&self, subscriber: &str) -> Vec<String> {
        self.by_query
            .iter()
            .filter(|(_, one)| one.outlets.contains_key(subscriber))
            .map(|(query, _)| query.clone())
            .collect()
    }

    /// Removes a subscription; whether there was one.
    pub(super) fn remove(&mut self, query: &str, subscriber: &str, reason: Cancelled) -> bool {
        let Some(one) = self.by_query.get_mut(query) else {
            return false;
        };
        let Some((_, outlet)) = one.outlets.remove(subscriber) else {
            return false;
        };
        outlet.cancel(reason);
        if one.outlets.is_empty() {
            self.by_query.remove(query);
        }
        if let Some(count) = self.clients.get_mut(subscriber) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(subscriber);
            }
        }
        true
    }

    /// Hands a message to all who subscribed to a query, and removes those who cannot take it.
    pub(super) fn give(&mut self, query: &str, message: &Arc<Message>) {
        let Some(one) = self.by_query.get(query) else {
            return;
        };
        let failed: Vec<(String, Cancelled)> = one
            .outlets
            .iter()
            .filter_map(|(subscriber, (_, outlet))| {
                let reason = outlet.give(message).err()?;
                Some((subscriber.clone(), reason))
            })
            .collect();
        for (subscriber, reason) in failed {
            self.remove(query, &subscriber, reason);
        }
    }

    /// The queries that an event matches.
    pub(super) fn wanting(&mut self, attributes: &Attributes) -> Vec<String> {
        self.by_query
            .iter_mut()
            .filter_map(|(key, one)| {
                let matches = one.query.compare(attributes, &mut one.work);
                matches.then(|| key.clone())
            })
            .collect()
    }

    /// Nothing waits: what was done until now has held up nobody.
    pub(super) fn rest(&mut self) {
        self.relieved_at = None;
        self.by_query.values_mut().for_each(|one| one.work = 0);
    }

    /// Cancels those who cause most of the work, once too much waits for it. `load` says how much
    /// waits, in thousandths of what may.
    pub(super) fn relieve(&mut self, load: usize) {
        if load < BEHIND {
            self.relieved_at = None;
            return;
        }
        let due = self.relieved_at.is_none_or(|at| load >= at + FURTHER);
        if !due {
            return;
        }
        let mut by_client = self.work_by_client();
        let total: u64 = by_client.iter().map(|(work, _)| work).sum();
        if total < MUCH_WORK {
            return;
        }
        self.relieved_at = Some(load);
        by_client.sort_unstable_by(|one, other| other.cmp(one));
        let mut left = total;
        for (work, client) in by_client {
            if left <= total / LEFT {
                break;
            }
            left -= work;
            tracing::warn!(
                subscriber = client,
                "events cannot be compared with a subscriber's queries as fast as they happen: it is \
                 cancelled"
            );
            self.cancel_client(&client, Cancelled::OutOfCapacity);
        }
    }

    /// What each has cost since the last rest. A query that several have is compared once for all.
    fn work_by_client(&self) -> Vec<(u64, String)> {
        let mut by_client: BTreeMap<&String, u64> = BTreeMap::new();
        for one in self.by_query.values() {
            for client in one.outlets.keys() {
                *by_client.entry(client).or_default() += one.work / one.outlets.len() as u64;
            }
        }
        let all = by_client.into_iter();
        all.map(|(client, work)| (work, client.clone())).collect()
    }

    fn cancel_client(&mut self, client: &str, reason: Cancelled) {
        for query in self.queries_of(client) {
            self.remove(&query, client, reason);
        }
    }

    /// Cancels the subscriptions that ask for steps of consensus.
    pub(super) fn cancel_steps(&mut self, reason: Cancelled) {
        let steps = RoundEvent::NAMES.map(Attributes::of_name);
        let asks = |one: &OneQuery| steps.iter().any(|step| one.query.matches(step));
        let queries = self.by_query.iter().filter(|(_, one)| asks(one));
        let queries: Vec<String> = queries.map(|(key, _)| key.clone()).collect();
        self.cancel_queries(queries, reason);
    }

    pub(super) fn cancel_all(&mut self, reason: Cancelled) {
        let queries = self.by_query.keys().cloned().collect();
        self.cancel_queries(queries, reason);
    }

    fn cancel_queries(&mut self, queries: Vec<String>, reason: Cancelled) {
        for query in queries {
            let one = self.by_query.get(&query);
            let clients: Vec<String> = one
                .into_iter()
                .flat_map(|one| one.outlets.keys())
                .cloned()
                .collect();
            for client in clients {
                self.remove(&query, &client, reason);
            }
        }
    }
}
