use std::{collections::BTreeMap, task::Waker};

use crate::peer::Standing;

/// A large message is one that holds more than one part in this many of the budget. Each connection
/// has one message on its way at a time, so that with fewer connections than half of this, those that
/// are not large cannot take the half that the large ones leave. A larger figure would call ordinary
/// blocks large.
const LARGE: usize = 128;

/// Bytes that messages which pass may take beyond the budget, all together, but for the one of them
/// that takes what it needs. Larger is memory; smaller, and fewer blocks of some MiB pass side by side.
pub(super) const PASSING: usize = 32 << 20;

/// Messages by the order in which they began.
pub(super) type Age = u64;

/// Who has which bytes, and who waits for some. It knows no task: what is granted to one that waits
/// is told by its waker, and to be fetched.
#[derive(Debug)]
pub(super) struct Ledger {
    total: usize,
    /// Bytes of the budget that are taken, at most all of it.
    taken: usize,
    /// Those of them that large messages have which are still on their way.
    arriving: usize,
    /// Bytes beside the budget that messages have which pass.
    passing: usize,
    /// Bytes beside the budget that the message has which the reserve was lent to last: all of its
    /// bytes, so that it keeps no others waiting, however slowly it comes.
    lent: usize,
    /// Whose the reserve is: it takes what it needs until it has arrived.
    favoured: Option<Age>,
    /// Which of those that pass takes what it needs until it has arrived: side by side they would stop
    /// one another half-way.
    first_to_pass: Option<Age>,
    waiting: BTreeMap<Age, Waiting>,
    next_age: Age,
}

/// What a message asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) bytes: usize,
    /// What it has already.
    pub(super) share: Share,
    /// It may go beside the budget.
    pub(super) passes: bool,
    /// How its sender stands among those of whom one gets what there is only once.
    pub(super) standing: Standing,
}

/// What a message has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) taken: usize,
    pub(super) arriving: usize,
    pub(super) passing: usize,
    pub(super) lent: usize,
    pub(super) favoured: bool,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    /// What it has now.
    granted: Option<Share>,
    waker: Option<Waker>,
}

impl Share {
    /// Bytes that a message has in all.
    pub(super) fn held(&self) -> usize {
        self.taken + self.passing + self.lent
    }
}

impl Ledger {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            taken: 0,
            arriving: 0,
            passing: 0,
            lent: 0,
            favoured: None,
            first_to_pass: None,
            waiting: BTreeMap::new(),
            next_age: 0,
        }
    }

    pub(super) fn available(&self) -> usize {
        self.total.saturating_sub(self.taken)
    }

    pub(super) fn waiting(&self) -> usize {
        let waiting = self.waiting.values();
        waiting.filter(|waiting| waiting.granted.is_none()).count()
    }

    /// The age of a message that begins, and what it has if it may have it at once.
    pub(super) fn begin(&mut self, ask: Ask) -> (Age, Option<Share>) {
        self.next_age += 1;
        (self.next_age, self.try_take(self.next_age, ask))
    }

    /// Whether somebody waits for bytes that are taken, and not just for those of other large messages.
    pub(super) fn is_spent(&self) -> bool {
        let mut waiting = self.waiting.values();
        waiting.any(|waiting| waiting.granted.is_none() && !self.is_free(waiting.ask))
    }

    /// Gives at once what a message asks for, if it may have it before those that wait: what it has
    /// then.
    pub(super) fn try_take(&mut self, age: Age, ask: Ask) -> Option<Share> {
        if self.favoured == Some(age) {
            return Some(self.lend(ask));
        }
        if self.first_to_pass == Some(age) {
            return Some(self.take_beside(ask));
        }
        let nobody_waits = self.waiting.is_empty();
        (nobody_waits && self.has_room(ask)).then(|| self.take(ask))
    }

    /// Lets a message wait. Whom to wake.
    #[must_use]
    pub(super) fn wait(&mut self, age: Age, ask: Ask) -> Vec<Waker> {
        let waiting = Waiting {
            ask,
            granted: None,
            waker: None,
        };
        self.waiting.insert(age, waiting);
        self.settle()
    }

    /// What a message that waited has, once something was granted to it; else `waker` is told when something is.
    pub(super) fn fetch(&mut self, age: Age, waker: &Waker) -> Option<Share> {
        let waiting = self.waiting.get_mut(&age)?;
        if let Some(share) = waiting.granted {
            self.waiting.remove(&age);
            return Some(share);
        }
        match &mut waiting.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        None
    }

    /// A message that waits may go beside the budget. Whom to wake.
    #[must_use]
    pub(super) fn pass(&mut self, age: Age, standing: Standing) -> Vec<Waker> {
        if let Some(waiting) = self.waiting.get_mut(&age) {
            waiting.ask.passes = true;
            waiting.ask.standing = standing;
        }
        self.settle()
    }

    /// A message is whole: what it has no longer counts as on its way. Whom to wake.
    #[must_use]
    pub(super) fn arrived(&mut self, age: Age, arriving: usize) -> Vec<Waker> {
        self.arriving -= arriving;
        self.favoured = self.favoured.filter(|&favoured| favoured != age);
        self.first_to_pass = self.first_to_pass.filter(|&first| first != age);
        self.settle()
    }

    /// A message gives back all that it has and waits for. Whom to wake.
    #[must_use]
    pub(super) fn give_back(&mut self, age: Age, waits: bool, mut share: Share) -> Vec<Waker> {
        if waits
            && let Some(waiting) = self.waiting.remove(&age)
            && let Some(granted) = waiting.granted
        {
            share = granted;
        }
        self.taken -= share.taken;
        self.passing -= share.passing;
        self.lent -= share.lent;
        self.arrived(age, share.arriving)
    }

    /// Gives what is free, the oldest first. Whoever takes what it needs, once nobody does: the oldest
    /// of the best standing.
    fn settle(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        if self.waiting.is_empty() {
            return woken;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut is_spent = false;
        for waiting in waiting.values_mut() {
            let ask = waiting.ask;
            if waiting.granted.is_some() {
                continue;
            }
            if !is_spent && self.has_room(ask) {
                waiting.grant(self.take(ask), &mut woken);
            } else if ask.passes && self.passing + ask.bytes <= PASSING {
                waiting.grant(self.take_beside(ask), &mut woken);
            } else {
                // Whoever came later does not take what is kept together for this one; what only
                // large ones may not have does not concern the others.
                is_spent |= !self.is_free(ask);
            }
        }
        let mut goes_on = false;
        if self.first_to_pass.is_none()
            && self.passing <= PASSING
            && let Some((age, first)) = foremost(&mut waiting, |ask| ask.passes)
        {
            self.first_to_pass = Some(age);
            let mut share = self.take_beside(first.ask);
            share.favoured = true;
            first.grant(share, &mut woken);
            goes_on = true;
        }
        if self.favoured.is_none()
            && self.lent == 0
            && let Some((age, first)) = foremost(&mut waiting, |ask| ask.share.held() > 0)
        {
            self.favoured = Some(age);
            let share = self.lend(first.ask);
            first.grant(share, &mut woken);
            goes_on = true;
        }
        self.waiting = waiting;
        if goes_on {
            // What was kept together for it, or what it had, is free for others now.
            woken.extend(self.settle());
        }
        woken
    }

    fn is_free(&self, ask: Ask) -> bool {
        self.taken + ask.bytes <= self.total
    }

    fn has_room(&self, ask: Ask) -> bool {
        let most = self.total.div_ceil(2);
        // One that is larger than their half has it alone.
        let open = self.arriving + self.arriving_bytes(ask).min(most) <= most;
        open && self.is_free(ask)
    }

    fn take(&mut self, ask: Ask) -> Share {
        let arriving = self.arriving_bytes(ask);
        self.taken += ask.bytes;
        self.arriving += arriving;
        let mut share = ask.share;
        share.taken += ask.bytes;
        share.arriving += arriving;
        share
    }

    fn take_beside(&mut self, ask: Ask) -> Share {
        self.passing += ask.bytes;
        let mut share = ask.share;
        share.passing += ask.bytes;
        share
    }

    /// Gives a message what it asks for out of the reserve, and what it had of the budget back to that.
    fn lend(&mut self, ask: Ask) -> Share {
        let Share {
            taken, arriving, ..
        } = ask.share;
        self.taken -= taken;
        self.arriving -= arriving;
        self.lent += taken + ask.bytes;
        Share {
            taken: 0,
            arriving: 0,
            lent: ask.share.lent + taken + ask.bytes,
            favoured: true,
            ..ask.share
        }
    }

    /// The bytes that count as a large message's.
    fn arriving_bytes(&self, ask: Ask) -> usize {
        if ask.share.held() + ask.bytes > self.total / LARGE {
            ask.bytes
        } else {
            0
        }
    }
}

/// The oldest of the best standing, of those that wait for what they ask for.
fn foremost(
    waiting: &mut BTreeMap<Age, Waiting>,
    which: impl Fn(&Ask) -> bool,
) -> Option<(Age, &mut Waiting)> {
    let waiting = waiting.iter_mut().map(|(&age, waiting)| (age, waiting));
    let open = waiting.filter(|(_, it)| it.granted.is_none() && which(&it.ask));
    open.min_by_key(|(age, it)| (it.ask.standing, *age))
}

impl Waiting {
    fn grant(&mut self, share: Share, woken: &mut Vec<Waker>) {
        self.granted = Some(share);
        woken.extend(self.waker.take());
    }
}
