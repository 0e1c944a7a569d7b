//! All authorities of a trust domain, of both kinds, with where each one stands. Whoever keeps it keeps their private
//! keys beside it.

use deputize_call::{
    keys::PublicKey,
    sign::{SigningAlgorithm, SigningKey},
};
use spiffe::TrustDomain;
use std::sync::Arc;

use super::{
    Authority, AuthorityCertificate, AuthorityError, AuthorityRing, BACKDATED_SECONDS, JwtAuthority,
    Upstream,
    stage::{self, Due, Kind, Life, NotNow, Stage},
};
use crate::secret::Secret;

/// They, and the number of the bundle that they make.
///
/// INVARIANT: of each kind at most one is active and at most one prepared; ids are unique; `sequence` only grows.
#[derive(Debug, Clone)]
pub struct Register {
    trust_domain: TrustDomain,
    sequence: u64,
    members: Vec<Member>,
}

/// One authority.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name: of an X.509 authority the SHA-256 of its key in hexadecimal, of a JWT authority its `kid`.
    pub id: String,
    /// Where it stands, and from when until when.
    pub life: Life,
    /// Its public side.
    pub public: Public,
}

/// The public side of an authority.
#[derive(Debug, Clone)]
pub enum Public {
    /// Signs X.509-SVIDs.
    X509(AuthorityCertificate),
    /// Signs JWT-SVIDs.
    Jwt(PublicKey),
}

/// A new authority, before it is in a register: whoever takes it in has its private key in safety.
#[derive(Debug)]
pub struct Made {
    /// It.
    pub member: Member,
    /// Its private key, PKCS#8 DER.
    pub pkcs8: Secret<Vec<u8>>,
}

impl Made {
    /// One that signs X.509-SVIDs, for so many seconds.
    ///
    /// # Errors
    /// If it cannot be made, or the one above it is about to end.
    pub fn x509(
        trust_domain: &TrustDomain,
        upstream: Option<&Upstream>,
        now_seconds: u64,
        ttl_seconds: u64,
    ) -> Result<Self, AuthorityError> {
        let (authority, pkcs8) = match upstream {
            Some(upstream) => Authority::under(upstream, trust_domain, now_seconds, ttl_seconds)?,
            None => Authority::self_signed(trust_domain, now_seconds, ttl_seconds)?,
        };
        let certificate = authority.certificate().clone();
        let span = (certificate.not_before_seconds(), certificate.not_after_seconds());
        let member = Member::prepared(certificate.id(), Public::X509(certificate), now_seconds, span);
        Ok(Self { member, pkcs8 })
    }

    /// One that signs JWT-SVIDs, for so many seconds.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn jwt(now_seconds: u64, ttl_seconds: u64) -> Result<Self, AuthorityError> {
        let failed = |_| AuthorityError("no key could be generated");
        let key = SigningKey::generate(SigningAlgorithm::ES256).map_err(failed)?;
        let pkcs8 = key.to_pkcs8().map_err(failed)?;
        let span = (now_seconds.saturating_sub(BACKDATED_SECONDS), now_seconds.saturating_add(ttl_seconds));
        let public = Public::Jwt(key.public().clone());
        let member = Member::prepared(key.kid().to_owned(), public, now_seconds, span);
        Ok(Self { member, pkcs8: Secret::new(pkcs8.to_vec()) })
    }
}

impl Member {
    /// What it signs.
    pub fn kind(&self) -> Kind {
        match self.public {
            Public::X509(_) => Kind::X509,
            Public::Jwt(_) => Kind::Jwt,
        }
    }

    /// Whether its private key is still needed; else it is to be destroyed.
    pub fn needs_key(&self) -> bool {
        matches!(self.life.stage, Stage::Prepared | Stage::Active)
    }

    fn prepared(
        id: String,
        public: Public,
        since_seconds: u64,
        (not_before_seconds, not_after_seconds): (u64, u64),
    ) -> Self {
        let life = Life {
            stage: Stage::Prepared,
            since_seconds,
            not_before_seconds,
            not_after_seconds,
            activates_at_seconds: None,
        };
        Self { id, life, public }
    }
}

impl Register {
    /// One without authorities: the first ones are made as soon as time is followed.
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, sequence: 0, members: Vec::new() }
    }

    /// One as it was kept.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn restore(
        trust_domain: TrustDomain,
        sequence: u64,
        members: Vec<Member>,
    ) -> Result<Self, AuthorityError> {
        for kind in [Kind::X509, Kind::Jwt] {
            for stage in [Stage::Active, Stage::Prepared] {
                let at_it = |member: &&Member| member.kind() == kind && member.life.stage == stage;
                if members.iter().filter(at_it).count() > 1 {
                    return Err(AuthorityError("several authorities of one kind are active, or prepared"));
                }
            }
        }
        let mut ids: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != members.len() || members.len() > MAX_MEMBERS {
            return Err(AuthorityError("there are too many authorities, or one twice"));
        }
        Ok(Self { trust_domain, sequence, members })
    }

    /// Ours.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The number of the bundle.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// All of them, oldest first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The one that signs.
    pub fn active(&self, kind: Kind) -> Option<&Member> {
        self.of(kind).map(|(_, member)| member).find(|member| member.life.stage == Stage::Active)
    }

    /// Whether anything is due.
    pub fn is_due(&self, now_seconds: u64) -> bool {
        [Kind::X509, Kind::Jwt].into_iter().any(|kind| self.due(kind, now_seconds).is_some())
    }

    /// Does what is due at this moment. `make` makes a new authority of a kind, and keeps its private key.
    ///
    /// # Errors
    /// What `make` could not do; then this is to be forgotten.
    pub fn follow_time<E>(
        &mut self,
        now_seconds: u64,
        mut make: impl FnMut(Kind) -> Result<Member, E>,
    ) -> Result<(), E> {
        for kind in [Kind::X509, Kind::Jwt] {
            // Each step leaves less to be done: one is prepared, takes over, and what is over goes.
            for _ in 0..MAX_MEMBERS {
                match self.due(kind, now_seconds) {
                    None => break,
                    Some((Due::Prepare, _)) => self.take_in(make(kind)?, now_seconds),
                    Some((Due::Activate(_), Some(at))) => self.put_in_office(kind, at, now_seconds),
                    Some((_, at)) => self.remove(at, now_seconds),
                }
            }
        }
        Ok(())
    }

    /// Takes a further one in, to sign from `activates_at_seconds` on, or when its time has come.
    ///
    /// # Errors
    /// [`NotNow::AlreadyPrepared`].
    pub fn prepare<E: From<NotNow>>(
        &mut self,
        kind: Kind,
        (now_seconds, activates_at_seconds): (u64, Option<u64>),
        make: impl FnOnce() -> Result<Member, E>,
    ) -> Result<(), E> {
        stage::may_prepare(&self.lives(kind))?;
        let mut member = make()?;
        member.life.activates_at_seconds = activates_at_seconds;
        self.take_in(member, now_seconds);
        Ok(())
    }

    /// The prepared one signs from now on.
    ///
    /// # Errors
    /// [`NotNow::NonePrepared`]; [`NotNow::NotKnownYet`], but where it is to be `at_once`.
    pub fn activate(&mut self, kind: Kind, now_seconds: u64, at_once: bool) -> Result<(), NotNow> {
        let at = stage::may_activate(&self.lives(kind), now_seconds, at_once)?;
        let at = self.of(kind).nth(at).map(|(at, _)| at).ok_or(NotNow::NonePrepared)?;
        self.put_in_office(kind, at, now_seconds);
        Ok(())
    }

    /// What an old one signed is replaced from now on.
    ///
    /// # Errors
    /// [`NotNow::Unknown`], [`NotNow::Signs`], [`NotNow::SignedNothing`], [`NotNow::AlreadyTainted`].
    pub fn taint(&mut self, id: &str, now_seconds: u64) -> Result<(), NotNow> {
        let member = self.members.iter_mut().find(|member| member.id == id).ok_or(NotNow::Unknown)?;
        stage::may_taint(&member.life)?;
        (member.life.stage, member.life.since_seconds) = (Stage::Tainted, now_seconds);
        self.count(now_seconds);
        Ok(())
    }

    /// One goes before its time: what it signed verifies no longer.
    ///
    /// # Errors
    /// [`NotNow::Unknown`], [`NotNow::Signs`], [`NotNow::InUse`].
    pub fn revoke(&mut self, id: &str, now_seconds: u64) -> Result<(), NotNow> {
        let at = self.members.iter().position(|member| member.id == id).ok_or(NotNow::Unknown)?;
        self.members.get(at).map_or(Ok(()), |member| stage::may_revoke(&member.life))?;
        self.remove(Some(at), now_seconds);
        Ok(())
    }

    /// The ring that it makes, with the private keys of the active ones; nothing where one of those is another's.
    pub fn ring(&self, active: Arc<Authority>, jwt: Arc<SigningKey>) -> Option<AuthorityRing> {
        let is_active = self.active(Kind::X509)?.id == active.certificate().id();
        let jwt_member = self.active(Kind::Jwt).filter(|member| member.id == jwt.kid() && is_active)?;
        let jwt = JwtAuthority { key: jwt, not_after_seconds: jwt_member.life.not_after_seconds };
        let known = self.members.iter().filter_map(|member| match &member.public {
            Public::X509(certificate) => Some((certificate, member.life)),
            Public::Jwt(_) => None,
        });
        let trust_domain = self.trust_domain.clone();
        Some(AuthorityRing::new(trust_domain, (active, known), (jwt, self.jwt_keys()), self.sequence))
    }

    /// The public keys of all that sign JWT-SVIDs, or did, or will, and where each stands.
    fn jwt_keys(&self) -> Vec<(PublicKey, Stage)> {
        let keys = self.members.iter().filter_map(|member| match &member.public {
            Public::Jwt(key) => Some((key.clone(), member.life.stage)),
            Public::X509(_) => None,
        });
        keys.collect()
    }

    /// What is due, and the place among all members that it is about.
    fn due(&self, kind: Kind, now_seconds: u64) -> Option<(Due, Option<usize>)> {
        let due = stage::due(&self.lives(kind), now_seconds)?;
        let at = match due {
            Due::Prepare => None,
            Due::Activate(at) | Due::Drop(at) => self.of(kind).nth(at).map(|(at, _)| at),
        };
        Some((due, at))
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(move |(_, member)| member.kind() == kind)
    }

    fn lives(&self, kind: Kind) -> Vec<Life> {
        self.of(kind).map(|(_, member)| member.life).collect()
    }

    fn take_in(&mut self, member: Member, now_seconds: u64) {
        self.members.push(member);
        self.count(now_seconds);
    }

    fn put_in_office(&mut self, kind: Kind, at: usize, now_seconds: u64) {
        let of_kind = self.members.iter_mut().enumerate().filter(|(_, member)| member.kind() == kind);
        for (place, member) in of_kind {
            let next = match member.life.stage {
                Stage::Active => Stage::Old,
                Stage::Prepared if place == at => Stage::Active,
                Stage::Prepared | Stage::Old | Stage::Tainted => continue,
            };
            (member.life.stage, member.life.since_seconds) = (next, now_seconds);
        }
        self.count(now_seconds);
    }

    fn remove(&mut self, at: Option<usize>, now_seconds: u64) {
        if let Some(at) = at.filter(|at| *at < self.members.len()) {
            self.members.remove(at);
            self.count(now_seconds);
        }
    }

    /// A further bundle. By the clock where that is ahead: so it grows even where an older state was put back.
    fn count(&mut self, now_seconds: u64) {
        self.sequence = self.sequence.saturating_add(1).max(now_seconds);
    }
}

/// More than there can be of one each minute.
const MAX_MEMBERS: usize = 256;
