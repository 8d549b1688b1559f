//! Whether the books agree: for tests.

use std::collections::BTreeSet;

use perihelion_types::Height;

use super::Schedule;
use crate::{Mode, slot::Stage, timer::Timer};

impl Schedule {
    /// Whether the books agree with one another. For tests: costs as much as the window is long.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, what: &str| holds.then_some(()).ok_or_else(|| what.to_owned());
        let asks = self.peers.values().flat_map(|peer| &peer.asks);
        let open = asks.filter(|(height, _)| **height >= self.first());
        let (asked, expected) = open.fold((0, 0), |(asked, expected), (_, ask)| {
            (asked + 1, expected + ask.expected)
        });
        rule(
            (asked, expected) == (self.asked, self.expected_then),
            "requests are counted",
        )?;
        let held: usize = self
            .slots
            .iter()
            .filter_map(|slot| Some(slot.held.as_ref()?.bytes))
            .sum();
        rule(
            held == self.held_bytes,
            "held bytes are the sum over blocks",
        )?;
        rule(self.timers.is_consistent(), "deadlines are in both views")?;
        rule(
            self.slots.len()
                <= self.window_blocks().max(2) + usize::from(self.mode == Mode::Consensus),
            "the window is bounded",
        )?;
        rule(
            self.applied.0 <= self.applying_to.max(self.applied.0),
            "applying is above applied",
        )?;
        rule(
            self.certified_to <= self.linked_to,
            "what is certified is linked",
        )?;
        for (&id, peer) in &self.peers {
            rule(
                peer.asks.len() == peer.by_order.len(),
                "requests are in both views",
            )?;
            rule(
                peer.asks.len() <= self.config.peer_allowance,
                "requests are bounded",
            )?;
            let timer = self.timers.get(Timer::Peer(id));
            rule(
                timer.is_some() != peer.asks.is_empty(),
                "a peer that owes has a deadline",
            )?;
            for height in peer.asks.keys().filter(|&&height| height >= self.first()) {
                let listed = self
                    .slot(*height)
                    .is_some_and(|slot| slot.asks.contains(&id));
                rule(listed, "a request in the window is in its slot")?;
            }
        }
        self.check_chain()?;
        self.check_slots()
    }

    /// What is linked is one chain on the last applied block, and nothing below is verified any more.
    fn check_chain(&self) -> Result<(), String> {
        let mut below = self.applied.1;
        let linked = self.linked_to.since(self.applied.0);
        let linked = usize::try_from(linked).unwrap_or(0);
        for held in self.slots.iter().take(linked).map(|slot| &slot.held) {
            let Some(held) = held else {
                return Err("what is linked is here".to_owned());
            };
            let block = &held.block;
            if block.block().header.last_block_id != below {
                return Err(format!("block {} names the one before", block.height()));
            }
            below = block.block_id();
        }
        if self.runs.iter().any(|run| run.first <= self.applied.0) {
            return Err("what is verified together is above what is applied".to_owned());
        }
        Ok(())
    }

    fn check_slots(&self) -> Result<(), String> {
        let mut needs = BTreeSet::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let height = self.first().plus(index as i64);
            let rule = |holds: bool, what: &str| {
                holds
                    .then_some(())
                    .ok_or_else(|| format!("height {height}: {what}: {slot:?}"))
            };
            let open = matches!(slot.stage, Stage::Wanted | Stage::Asked);
            rule(open != slot.held.is_some(), "held exactly from Here on")?;
            rule(
                (slot.stage != Stage::Wanted) || slot.asks.is_empty(),
                "wanted is not asked",
            )?;
            rule(
                (slot.stage != Stage::Asked) || !slot.asks.is_empty(),
                "asked is asked",
            )?;
            let mut owners = slot.asks.clone();
            owners.sort_unstable();
            owners.dedup();
            rule(owners.len() == slot.asks.len(), "each peer is asked once")?;
            for owner in owners {
                let known = self
                    .peers
                    .get(&owner)
                    .is_some_and(|peer| peer.asks.contains_key(&height));
                rule(known, "a slot's request is its peer's")?;
            }
            let linked = !matches!(slot.stage, Stage::Wanted | Stage::Asked | Stage::Here);
            rule(
                linked == (height <= self.linked_to),
                "linked up to linked_to",
            )?;
            let certified = matches!(slot.stage, Stage::Certified(_) | Stage::Applying(_));
            rule(
                certified == (height <= self.certified_to),
                "certified up to certified_to",
            )?;
            let applying = matches!(slot.stage, Stage::Applying(_));
            rule(
                applying == (height <= self.applying_to),
                "applying up to applying_to",
            )?;
            if slot.needs_ask() {
                needs.insert(height);
            }
        }
        let noted: BTreeSet<Height> = self.wanted.union(&self.parked).copied().collect();
        if needs != noted || self.wanted.intersection(&self.parked).next().is_some() {
            return Err(format!(
                "needed {needs:?}, noted {:?} and {:?}",
                self.wanted, self.parked
            ));
        }
        Ok(())
    }
}
