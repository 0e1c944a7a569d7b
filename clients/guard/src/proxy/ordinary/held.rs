//! Tokens of the guard's own that may serve a caller again: for looking, and for tools of the lowest level.

use std::{collections::HashMap, time::Duration};
use zeroize::Zeroizing;

use super::Minted;

/// What a token was made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Everything but calls.
    Listing,
    /// Any calls of this tool.
    Tool(String),
}

/// When a look is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) uptime: Duration,
    /// Version of the guard's snapshot. With a new one every token is asked for anew: what is granted may have changed.
    pub(super) version: u64,
}

/// The callers whose tokens the broker has accepted, and what was made of them. Bounded in callers, in callers of one
/// person, in tokens of one caller, and in all.
#[derive(Default)]
pub(super) struct Held {
    callers: HashMap<[u8; 32], Caller>,
    of_person: HashMap<[u8; 32], usize>,
    tokens: usize,
}

struct Caller {
    person: [u8; 32],
    /// Its own token is good until then.
    until: Duration,
    /// Version of the snapshot under which its tokens were made.
    version: u64,
    tokens: HashMap<What, Token>,
}

struct Token {
    token: Zeroizing<String>,
    until: Duration,
    uses_left: Option<u64>,
}

impl Held {
    /// Whether the broker accepted this caller's token before, under whatever snapshot: that gives it nothing but a better
    /// place in the queue to the broker, which judges it again.
    pub(super) fn knows(&self, tag: &[u8; 32], now: Moment) -> bool {
        self.callers.get(tag).is_some_and(|caller| caller.is_good(now))
    }

    /// A token that is good for one more use.
    pub(super) fn take(&mut self, tag: &[u8; 32], what: &What, now: Moment) -> Option<Zeroizing<String>> {
        let caller = self.current(tag, now)?;
        let token = caller.tokens.get_mut(what)?;
        if now.uptime >= token.until || token.uses_left == Some(0) {
            caller.tokens.remove(what);
            self.tokens -= 1;
            return None;
        }
        token.uses_left = token.uses_left.map(|uses| uses - 1);
        Some(token.token.clone())
    }

    /// The broker accepts this caller's token, for `remaining`.
    pub(super) fn know(&mut self, (tag, person): ([u8; 32], [u8; 32]), remaining: Duration, now: Moment) {
        if self.knows(&tag, now) {
            return;
        }
        self.forget(&tag);
        if self.callers.len() >= MAX_CALLERS || self.of(&person) >= MAX_CALLERS_OF_PERSON {
            self.forget_old(now);
        }
        if self.callers.len() < MAX_CALLERS && self.of(&person) < MAX_CALLERS_OF_PERSON {
            *self.of_person.entry(person).or_default() += 1;
            let until = now.uptime + remaining;
            self.callers.insert(tag, Caller { person, until, version: now.version, tokens: HashMap::new() });
        }
    }

    /// Keeps a token that is used once already, for a caller that is known.
    pub(super) fn keep(&mut self, tag: &[u8; 32], what: What, minted: &Minted, now: Moment) {
        let until = now.uptime + minted.lives.saturating_sub(MARGIN);
        let uses_left = minted.max_uses.map(|uses| uses.saturating_sub(1));
        if until <= now.uptime || uses_left == Some(0) {
            return;
        }
        if self.tokens >= MAX_TOKENS {
            self.forget_old(now);
        }
        let has_room = self.tokens < MAX_TOKENS;
        let caller = self.current(tag, now);
        let Some(caller) = caller.filter(|caller| has_room && caller.tokens.len() < MAX_TOKENS_OF_CALLER)
        else {
            return;
        };
        let token = Token { token: minted.token.clone(), until, uses_left };
        if caller.tokens.insert(what, token).is_none() {
            self.tokens += 1;
        }
    }

    /// Forgets a caller: something of its was refused.
    pub(super) fn forget(&mut self, tag: &[u8; 32]) {
        let Some(caller) = self.callers.remove(tag) else { return };
        self.tokens -= caller.tokens.len();
        if let Some(count) = self.of_person.get_mut(&caller.person) {
            *count -= 1;
            if *count == 0 {
                self.of_person.remove(&caller.person);
            }
        }
    }

    /// A caller that is known, without what was made of its token under another snapshot.
    fn current(&mut self, tag: &[u8; 32], now: Moment) -> Option<&mut Caller> {
        let caller = self.callers.get_mut(tag).filter(|caller| caller.is_good(now))?;
        if caller.version != now.version {
            self.tokens -= caller.tokens.len();
            caller.tokens.clear();
            caller.version = now.version;
        }
        Some(caller)
    }

    fn forget_old(&mut self, now: Moment) {
        let is_old = |caller: &Caller| !caller.is_good(now);
        let old: Vec<[u8; 32]> =
            self.callers.iter().filter(|(_, caller)| is_old(caller)).map(|(tag, _)| *tag).collect();
        for tag in &old {
            self.forget(tag);
        }
        for caller in self.callers.values_mut() {
            let before = caller.tokens.len();
            let is_current = caller.version == now.version;
            caller.tokens.retain(|_, token| is_current && now.uptime < token.until);
            self.tokens -= before - caller.tokens.len();
        }
    }

    fn of(&self, person: &[u8; 32]) -> usize {
        self.of_person.get(person).copied().unwrap_or_default()
    }
}

impl Caller {
    fn is_good(&self, now: Moment) -> bool {
        now.uptime < self.until
    }
}

const MAX_CALLERS: usize = 20_000;
const MAX_CALLERS_OF_PERSON: usize = 64;
const MAX_TOKENS: usize = 20_000;
const MAX_TOKENS_OF_CALLER: usize = 256;
/// A token is not used when it could expire on its way.
const MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Moment = Moment { uptime: Duration::from_secs(100), version: 1 };

    fn at(seconds: u64, version: u64) -> Moment {
        Moment { uptime: Duration::from_secs(seconds), version }
    }

    fn minted(max_uses: Option<u64>) -> Minted {
        Minted { token: Zeroizing::new("token".to_owned()), lives: Duration::from_secs(60), max_uses }
    }

    fn tag(n: usize) -> [u8; 32] {
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&n.to_be_bytes());
        tag
    }

    #[test]
    fn a_token_serves_its_caller_for_its_tool_until_it_ends() {
        let mut held = Held::default();
        let lookup = What::Tool("lookup".to_owned());
        held.keep(&tag(1), lookup.clone(), &minted(None), FIRST);
        assert!(held.take(&tag(1), &lookup, FIRST).is_none(), "of a caller that is not known");
        held.know((tag(1), tag(9)), Duration::from_secs(600), FIRST);
        held.keep(&tag(1), lookup.clone(), &minted(None), FIRST);
        assert!(held.take(&tag(1), &lookup, at(154, 1)).is_some());
        assert!(
            held.take(&tag(2), &lookup, FIRST).is_none()
                && held.take(&tag(1), &What::Listing, FIRST).is_none()
        );
        assert!(held.take(&tag(1), &lookup, at(101, 2)).is_none(), "a new snapshot: asked anew");
        assert!(held.take(&tag(1), &lookup, FIRST).is_none() && held.tokens == 0, "and gone for good");
        held.keep(&tag(1), lookup.clone(), &minted(None), FIRST);
        assert!(held.take(&tag(1), &lookup, at(155, 1)).is_none());
        assert!(held.knows(&tag(1), at(699, 1)) && !held.knows(&tag(1), at(700, 1)));
        assert!(held.knows(&tag(1), at(699, 2)), "whatever the snapshot, it was accepted");
        held.keep(&tag(1), What::Listing, &minted(None), FIRST);
        held.forget(&tag(1));
        assert_eq!((held.tokens, held.of_person.len()), (0, 0));
    }

    #[test]
    fn a_token_serves_as_often_as_it_may() {
        let mut held = Held::default();
        held.know((tag(1), tag(9)), Duration::from_secs(600), FIRST);
        held.keep(&tag(1), What::Listing, &minted(Some(3)), FIRST);
        let more = (0..9).take_while(|_| held.take(&tag(1), &What::Listing, FIRST).is_some()).count();
        assert_eq!(more, 2, "one use was the first");
        held.keep(&tag(1), What::Listing, &minted(Some(1)), FIRST);
        assert!(held.take(&tag(1), &What::Listing, FIRST).is_none());
        assert_eq!(held.tokens, 0);
    }

    #[test]
    fn one_person_leaves_room_and_old_callers_make_it() {
        let mut held = Held::default();
        for n in 0..2 * MAX_CALLERS_OF_PERSON {
            held.know((tag(n), tag(9)), Duration::from_secs(10), FIRST);
        }
        assert_eq!(held.callers.len(), MAX_CALLERS_OF_PERSON);
        held.know((tag(1000), tag(8)), Duration::from_secs(10), FIRST);
        assert!(held.knows(&tag(1000), FIRST), "another person");
        held.know((tag(2000), tag(9)), Duration::from_secs(10), at(111, 1));
        assert!(held.knows(&tag(2000), at(111, 1)) && held.callers.len() == 1, "what is over makes room");
    }

    #[test]
    fn tokens_of_one_caller_are_bounded() {
        let mut held = Held::default();
        held.know((tag(1), tag(9)), Duration::from_secs(600), FIRST);
        for n in 0..2 * MAX_TOKENS_OF_CALLER {
            held.keep(&tag(1), What::Tool(n.to_string()), &minted(None), FIRST);
        }
        assert_eq!(held.tokens, MAX_TOKENS_OF_CALLER);
    }
}
