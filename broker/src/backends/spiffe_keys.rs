//! The authorities of the trust domain, and their private keys: files under `data_dir/keys/spiffe`.
//!
//! - `authorities.json` says which there are, and where each stands. It is put there as a whole, under a lock on
//!   `lock`, so that a running broker and `deputize keys` do not undo each other's work.
//! - `x509-ID.p8` and `jwt-ID.p8` are private keys of those that sign, or will. They are there before anything names
//!   them, and are destroyed once nothing does.

mod ring;
mod stored;

pub use ring::SpiffeRing;
pub use stored::{Making, UpstreamFiles};

use deputize_issuer::{
    authority::{Kind, Made, Member, NotNow, Register, Upstream},
    secret::Secret,
};
use spiffe::TrustDomain;
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::key_files::{KeyFileError, make_private_folder, problem, read_private, replace, write_new};
use stored::Document;

/// The authorities of one data folder.
#[derive(Debug, Clone)]
pub struct SpiffeKeys {
    folder: PathBuf,
}

/// What the folder says: which authorities there are, and how further ones are made.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The authorities.
    pub register: Register,
    /// How further ones are made: as the broker was last configured.
    pub making: Making,
}

/// Why something was not done with an authority.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// It cannot be done now.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// A file is not as it should be.
    #[error(transparent)]
    Files(#[from] KeyFileError),
}

impl SpiffeKeys {
    /// The keys that are there already: for who only looks, and makes nothing.
    pub fn existing(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("keys").join("spiffe") }
    }

    /// What the folder says; nothing where no broker with SVIDs was ever here.
    ///
    /// # Errors
    /// If it cannot be read, is readable by others, or does not hold together.
    pub fn read(&self) -> Result<Option<Kept>, KeyFileError> {
        let path = self.document();
        let Some(bytes) = read_private(&path)? else { return Ok(None) };
        Document::read(&bytes).map(Some).map_err(|error| problem(&path, &error))
    }

    /// Makes a further authority of a kind, in the bundle from now on, to sign from `activates_at_seconds` on or when
    /// its time has come.
    ///
    /// # Errors
    /// [`NotDone`].
    pub fn prepare(
        &self,
        kind: Kind,
        now_seconds: u64,
        activates_at_seconds: Option<u64>,
    ) -> Result<Kept, NotDone> {
        self.change(|kept| {
            let Kept { register, making } = kept;
            let trust_domain = register.trust_domain().clone();
            let make = || self.make(kind, &trust_domain, making, now_seconds).map_err(NotDone::from);
            register.prepare(kind, (now_seconds, activates_at_seconds), make)
        })
    }

    /// Has the prepared one sign from now on; `at_once`, whether or not everybody has it.
    ///
    /// # Errors
    /// [`NotDone`].
    pub fn activate(&self, kind: Kind, now_seconds: u64, at_once: bool) -> Result<Kept, NotDone> {
        self.change(|kept| Ok(kept.register.activate(kind, now_seconds, at_once)?))
    }

    /// Has everything replaced that an old one signed.
    ///
    /// # Errors
    /// [`NotDone`].
    pub fn taint(&self, id: &str, now_seconds: u64) -> Result<Kept, NotDone> {
        self.change(|kept| Ok(kept.register.taint(id, now_seconds)?))
    }

    /// Takes one out of the bundle before its time.
    ///
    /// # Errors
    /// [`NotDone`].
    pub fn revoke(&self, id: &str, now_seconds: u64) -> Result<Kept, NotDone> {
        self.change(|kept| Ok(kept.register.revoke(id, now_seconds)?))
    }

    /// Somebody else has the key: a new one signs at once, and everything that the old ones signed is replaced.
    ///
    /// # Errors
    /// [`NotDone`].
    pub fn replace_compromised(&self, kind: Kind, now_seconds: u64) -> Result<Kept, NotDone> {
        self.change(|kept| {
            let Kept { register, making } = kept;
            let trust_domain = register.trust_domain().clone();
            let make = || self.make(kind, &trust_domain, making, now_seconds).map_err(NotDone::from);
            let mut all: Vec<String> = ids(register, kind);
            // One that was prepared lay beside the others: whoever has those has it too.
            let prepared = |member: &&Member| member.kind() == kind && !is_or_was_active(member);
            if let Some(prepared) = register.members().iter().find(prepared).map(|member| member.id.clone()) {
                register.revoke(&prepared, now_seconds)?;
                all.retain(|id| *id != prepared);
            }
            register.prepare(kind, (now_seconds, Some(now_seconds)), make)?;
            register.activate(kind, now_seconds, true)?;
            for id in all {
                match register.taint(&id, now_seconds) {
                    Ok(()) | Err(NotNow::AlreadyTainted) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }

    /// The folder with its first authorities, made if there are none, and what is due done.
    fn open(
        &self,
        trust_domain: &TrustDomain,
        making: Making,
        now_seconds: u64,
    ) -> Result<Kept, KeyFileError> {
        make_private_folder(&self.folder)?;
        let _lock = self.lock()?;
        let mut kept = match self.read()? {
            Some(kept) => Kept { making, ..kept },
            None => Kept { register: Register::empty(trust_domain.clone()), making },
        };
        if kept.register.trust_domain() != trust_domain {
            let theirs = kept.register.trust_domain();
            let error =
                format!("the authorities are those of {theirs}: another trust domain needs another data_dir");
            return Err(problem(&self.folder, &error));
        }
        self.follow_time(&mut kept, now_seconds)?;
        self.keep(&kept)?;
        Ok(kept)
    }

    /// Does what is due by time. What is older than `seen`, the number of the bundle that was published last, is refused:
    /// it would bring back what was revoked, under a number that nobody looks at any more.
    fn turn(&self, now_seconds: u64, seen: u64) -> Result<Kept, NotDone> {
        self.change(|kept| {
            if kept.register.sequence() < seen {
                let older =
                    "it is older than what is in use: put the newer one back, or take it with a restart";
                return Err(problem(&self.document(), &older).into());
            }
            Ok(self.follow_time(kept, now_seconds)?)
        })
    }

    fn follow_time(&self, kept: &mut Kept, now_seconds: u64) -> Result<(), KeyFileError> {
        let Kept { register, making } = kept;
        let trust_domain = register.trust_domain().clone();
        register.follow_time(now_seconds, |kind| self.make(kind, &trust_domain, making, now_seconds))
    }

    /// Changes what the folder says, with nobody else doing so meanwhile.
    fn change(&self, change: impl FnOnce(&mut Kept) -> Result<(), NotDone>) -> Result<Kept, NotDone> {
        let _lock = self.lock()?;
        let mut kept = self.read()?.ok_or_else(|| problem(&self.document(), &"there are no authorities"))?;
        let before = kept.register.sequence();
        change(&mut kept)?;
        if kept.register.sequence() != before {
            self.keep(&kept)?;
        }
        Ok(kept)
    }

    /// INVARIANT: first the keys are in safety, then they are named; first they are no longer named, then they go.
    fn keep(&self, kept: &Kept) -> Result<(), KeyFileError> {
        let path = self.document();
        let bytes = Document::of(kept).to_bytes().map_err(|error| problem(&path, &error))?;
        replace(&path, &bytes)?;
        self.destroy_others(&kept.register)
    }

    fn make(
        &self,
        kind: Kind,
        trust_domain: &TrustDomain,
        making: &Making,
        now_seconds: u64,
    ) -> Result<Member, KeyFileError> {
        let ttl_seconds = making.ttl_seconds;
        let made = match kind {
            Kind::X509 => {
                let upstream = making.upstream.as_ref().map(UpstreamFiles::read).transpose()?;
                Made::x509(trust_domain, upstream.as_ref(), now_seconds, ttl_seconds)
            }
            Kind::Jwt => Made::jwt(now_seconds, ttl_seconds),
        };
        let Made { member, pkcs8 } = made.map_err(|error| problem(&self.folder, &error))?;
        write_new(&self.key_file(kind, &member.id), pkcs8.expose())?;
        Ok(member)
    }

    /// The private key of one that signs, or will.
    fn key(&self, kind: Kind, id: &str) -> Result<Secret<Vec<u8>>, KeyFileError> {
        let path = self.key_file(kind, id);
        let bytes =
            read_private(&path)?.ok_or_else(|| problem(&path, &"it is gone: `deputize keys rotate`"))?;
        Ok(Secret::new(bytes.to_vec()))
    }

    /// Destroys the private keys of those that sign no more, and what a sudden end left behind.
    fn destroy_others(&self, register: &Register) -> Result<(), KeyFileError> {
        let needed = register.members().iter().filter(|member| member.needs_key());
        let needed: Vec<PathBuf> = needed.map(|member| self.key_file(member.kind(), &member.id)).collect();
        let cannot = |error: std::io::Error| problem(&self.folder, &error);
        for entry in fs::read_dir(&self.folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if path.extension().is_some_and(|extension| extension == "p8") && !needed.contains(&path) {
                fs::remove_file(&path).map_err(|error| problem(&path, &error))?;
            }
        }
        Ok(())
    }

    /// Held until it is dropped. Whoever has it is done in no time: nobody waits.
    fn lock(&self) -> Result<File, KeyFileError> {
        let path = self.folder.join("lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| problem(&path, &error))?;
        file.try_lock()
            .map_err(|_| problem(&path, &"another process is changing the authorities: try again"))?;
        Ok(file)
    }

    fn document(&self) -> PathBuf {
        self.folder.join("authorities.json")
    }

    fn key_file(&self, kind: Kind, id: &str) -> PathBuf {
        let kind = match kind {
            Kind::X509 => "x509",
            Kind::Jwt => "jwt",
        };
        self.folder.join(format!("{kind}-{id}.p8"))
    }
}

impl UpstreamFiles {
    /// Reads and checks them.
    fn read(&self) -> Result<Upstream, KeyFileError> {
        let (certificates, key) = self.read_der()?;
        Upstream::new(certificates, key.expose()).map_err(|error| problem(&self.certificate_file, &error))
    }
}

fn ids(register: &Register, kind: Kind) -> Vec<String> {
    let of_kind = register.members().iter().filter(|member| member.kind() == kind);
    of_kind.map(|member| member.id.clone()).collect()
}

fn is_or_was_active(member: &Member) -> bool {
    member.life.stage != deputize_issuer::authority::Stage::Prepared
}

#[cfg(test)]
mod tests;
