//! What a running broker signs SVIDs with and gives to who verifies them, as time goes by.

use deputize_call::sign::SigningKey;
use deputize_issuer::{
    authority::{Authorities, Authority, AuthorityRing, Kind, Member, Public},
    keys::KeySource,
};
use spiffe::TrustDomain;
use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    super::key_files::{KeyFileError, problem},
    Kept, Making, NotDone, SpiffeKeys,
};

/// The ring of a running broker. It turns by itself: with time, and with what `deputize keys` puts there.
#[derive(Debug)]
pub struct SpiffeRing {
    files: SpiffeKeys,
    authorities: Arc<Authorities>,
    jwt_keys: Arc<KeySource>,
    seen: Mutex<Seen>,
}

/// What was seen in the folder last.
#[derive(Debug)]
struct Seen {
    kept: Kept,
    mark: Mark,
}

/// What changes with every change of the file: it is put there anew each time.
type Mark = (u64, u64, i64, i64);

impl SpiffeRing {
    /// The ring of this data folder, whose first authorities are made if there are none.
    ///
    /// # Errors
    /// If they are those of another trust domain, or cannot be read or made.
    pub fn open(
        data_dir: &Path,
        trust_domain: &TrustDomain,
        making: Making,
        now_seconds: u64,
    ) -> Result<Self, KeyFileError> {
        let files = SpiffeKeys::existing(data_dir);
        let kept = files.open(trust_domain, making, now_seconds)?;
        let mark = files.mark()?;
        let ring = files.ring(&kept, None)?;
        let jwt_keys = Arc::new(KeySource::of(ring.jwt_ring()));
        let authorities = Arc::new(Authorities::new(ring));
        Ok(Self { files, authorities, jwt_keys, seen: Mutex::new(Seen { kept, mark }) })
    }

    /// Where the mint gets what signs, and everybody else the bundle.
    pub fn authorities(&self) -> Arc<Authorities> {
        Arc::clone(&self.authorities)
    }

    /// The keys of JWT-SVIDs, as they are published.
    pub fn jwt_keys(&self) -> Arc<KeySource> {
        Arc::clone(&self.jwt_keys)
    }

    /// Takes what is due at this moment, and what came into the folder. Cheap where nothing changed: asked once a second.
    ///
    /// # Errors
    /// If files cannot be read or written, or are older than what was seen; the ring stays as it was.
    pub fn turn(&self, now_seconds: u64) -> Result<(), KeyFileError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if self.files.mark()? == seen.mark && !seen.kept.register.is_due(now_seconds) {
            return Ok(());
        }
        let kept =
            self.files.turn(now_seconds, seen.kept.register.sequence()).map_err(|error| match error {
                NotDone::Files(error) => error,
                NotDone::NotNow(error) => problem(&self.files.folder, &error),
            })?;
        let mark = self.files.mark()?;
        let now = self.authorities.ring();
        if kept.register.sequence() != seen.kept.register.sequence() {
            let ring = self.files.ring(&kept, Some(&now))?;
            tracing::info!(
                x509 = ring.active.certificate().id(),
                jwt = ring.jwt.kid(),
                sequence = ring.bundle.sequence,
                "authorities turned"
            );
            // Whoever verifies knows a key before anything that it signed is out.
            self.jwt_keys.turn_to(ring.jwt_ring());
            self.authorities.turn_to(ring);
        }
        *seen = Seen { kept, mark };
        Ok(())
    }
}

impl SpiffeKeys {
    fn mark(&self) -> Result<Mark, KeyFileError> {
        let path = self.document();
        let found = std::fs::metadata(&path).map_err(|error| problem(&path, &error))?;
        Ok((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    }

    /// The ring of what is kept; an authority that is held already is not read again.
    fn ring(&self, kept: &Kept, held: Option<&AuthorityRing>) -> Result<AuthorityRing, KeyFileError> {
        let register = &kept.register;
        let active = |kind| {
            register.active(kind).ok_or_else(|| problem(&self.folder, &"there is no authority that signs"))
        };
        let authority = match (active(Kind::X509)?, held) {
            (member, Some(held)) if held.active.certificate().id() == member.id => Arc::clone(&held.active),
            (member, _) => Arc::new(self.authority(member)?),
        };
        // Read again with each turn: whoever holds a ring gets nothing out of it that signs.
        let jwt = Arc::new(self.jwt_key(active(Kind::Jwt)?)?);
        register
            .ring(authority, jwt)
            .ok_or_else(|| problem(&self.folder, &"a key is not that of its authority"))
    }

    fn authority(&self, member: &Member) -> Result<Authority, KeyFileError> {
        let Public::X509(certificate) = &member.public else {
            return Err(problem(&self.folder, &"an authority of the wrong kind"));
        };
        let key = self.key(Kind::X509, &member.id)?;
        Authority::restore(certificate.clone(), key.expose()).map_err(|error| problem(&self.folder, &error))
    }

    fn jwt_key(&self, member: &Member) -> Result<SigningKey, KeyFileError> {
        let key = self.key(Kind::Jwt, &member.id)?;
        SigningKey::from_pkcs8(key.expose(), Some(&member.id)).map_err(|error| problem(&self.folder, &error))
    }
}
