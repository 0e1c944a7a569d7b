//! What a node is known by: its SVID, and the key that was made for it here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_issuer::{
    clock,
    entry::parse_spiffe_id,
    node::NODE_ID_PREFIX,
    secret::Secret,
    svid::{Bundle, Bundles, OwnKey, verify_x509_svid},
};
use deputize_workload_api::node::wire::{self, NodeSvidAnswer};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spiffe::SpiffeId;
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// A node's SVID with its key.
#[derive(Debug)]
pub struct NodeIdentity {
    /// The node.
    pub id: SpiffeId,
    /// When a new one is due, in Unix seconds.
    pub renew_at_seconds: u64,
    /// When it ends, in Unix seconds.
    pub not_after_seconds: u64,
    /// The authorities that it leads to.
    pub authorities: Vec<[u8; 32]>,
    /// What verifies it, and was told with it.
    pub bundle: Bundle,
    chain: Vec<Vec<u8>>,
    pkcs8: Secret<Vec<u8>>,
    document: Value,
}

impl NodeIdentity {
    /// Of what the broker answered to a request with this key.
    ///
    /// # Errors
    /// If it is not what was asked for.
    pub fn of(answer: &NodeSvidAnswer, key: &OwnKey, now_seconds: u64) -> Result<Self, String> {
        let chain = wire::from_base64(&answer.chain).map_err(|error| error.to_string())?;
        if !chain.first().is_some_and(|leaf| key.is_in(leaf)) {
            return Err("the broker's SVID is not for the key of this node".to_owned());
        }
        let pkcs8 = key.to_pkcs8().map_err(|error| error.to_string())?;
        Self::checked(answer, (chain, pkcs8), now_seconds)
    }

    fn checked(
        answer: &NodeSvidAnswer,
        (chain, pkcs8): (Vec<Vec<u8>>, Secret<Vec<u8>>),
        now_seconds: u64,
    ) -> Result<Self, String> {
        let id = parse_spiffe_id(&answer.spiffe_id).map_err(str::to_owned)?;
        if !id.path().starts_with(NODE_ID_PREFIX) {
            return Err("the broker's SVID is not that of a node".to_owned());
        }
        let bundle = wire::read_bundle(id.trust_domain().clone(), &answer.bundle);
        let bundle = bundle.map_err(|error| error.to_string())?;
        let ours = Bundles { own: Arc::new(bundle.clone()), federated: Vec::new() };
        let ders: Vec<CertificateDer<'_>> =
            chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        if verify_x509_svid(&ders, &ours, now_seconds).as_ref() != Ok(&id) {
            return Err("the node's SVID does not verify: do the clocks agree?".to_owned());
        }
        let authorities: Result<Vec<_>, _> =
            answer.authorities.iter().map(|name| wire::from_hex(name)).collect();
        let left = answer.expires_at.saturating_sub(now_seconds);
        Ok(Self {
            id,
            renew_at_seconds: now_seconds + left / 2 - jitter(left / 10),
            not_after_seconds: answer.expires_at,
            authorities: authorities.map_err(|error| error.to_string())?,
            bundle,
            chain,
            pkcs8,
            document: answer.bundle.clone(),
        })
    }

    /// Certificates and key, as TLS takes them: PEM.
    pub fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        let mut pem = Zeroizing::new(Vec::new());
        for certificate in &self.chain {
            block(&mut pem, "CERTIFICATE", certificate);
        }
        block(&mut pem, "PRIVATE KEY", self.pkcs8.expose());
        pem
    }
}

/// Textual encoding (RFC 7468 §2).
fn block(pem: &mut Vec<u8>, label: &str, der: &[u8]) {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    pem.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in encoded.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
}

/// Nodes that were started together do not renew together.
fn jitter(most: u64) -> u64 {
    let mut bytes = [0; 8];
    // Without randomness they do, which harms nothing.
    let _ = clock::fill_random(&mut bytes);
    u64::from_be_bytes(bytes) % (most + 1)
}

/// Where a node's SVID is kept between two starts.
#[derive(Debug, Clone)]
pub struct IdentityFile(PathBuf);

/// Its text.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The broker that gave it.
    broker: String,
    /// PKCS#8 DER, base64.
    key: String,
    #[serde(flatten)]
    svid: NodeSvidAnswer,
}

impl IdentityFile {
    /// In this folder, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn in_folder(folder: &Path) -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("{}: {error}", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let mode = fs::metadata(folder).map_err(cannot)?.permissions().mode();
        if mode & 0o022 != 0 {
            return Err(format!("{}: others may write to it: chmod 700", folder.display()));
        }
        Ok(Self(folder.join("node.json")))
    }

    /// What is kept, if it is of this broker and good still.
    ///
    /// # Errors
    /// If it cannot be read, or others may read it.
    pub fn read(&self, broker: &str, now_seconds: u64) -> Result<Option<NodeIdentity>, String> {
        let shown = self.0.display();
        let text = match fs::read(&self.0) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        let mode = fs::metadata(&self.0).map_err(|error| format!("{shown}: {error}"))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!("{shown}: others may read this node's key: chmod 600 {shown}"));
        }
        let kept: Kept = serde_json::from_slice(&text).map_err(|error| format!("{shown}: {error}"))?;
        let key = Zeroizing::new(kept.key);
        let pkcs8 = STANDARD.decode(key.as_bytes()).map_err(|error| format!("{shown}: {error}"))?;
        if kept.broker != broker {
            return Ok(None);
        }
        let chain = wire::from_base64(&kept.svid.chain).map_err(|error| format!("{shown}: {error}"))?;
        // One that is over, or of another time, is none.
        Ok(NodeIdentity::checked(&kept.svid, (chain, Secret::new(pkcs8)), now_seconds).ok())
    }

    /// Keeps it: whole, or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, broker: &str, identity: &NodeIdentity) -> Result<(), String> {
        let kept = Kept {
            broker: broker.to_owned(),
            key: STANDARD.encode(identity.pkcs8.expose()),
            svid: NodeSvidAnswer {
                spiffe_id: identity.id.to_string(),
                chain: wire::to_base64(&identity.chain),
                expires_at: identity.not_after_seconds,
                authorities: identity.authorities.iter().map(wire::to_hex).collect(),
                bundle: identity.document.clone(),
            },
        };
        let text = serde_json::to_vec(&kept).map(Zeroizing::new).map_err(|error| error.to_string())?;
        let _wiped = Zeroizing::new(kept.key);
        let temporary = self.0.with_extension("tmp");
        let replace = || {
            // Of an attempt that did not end.
            let _ = fs::remove_file(&temporary);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.0)
        };
        replace().map_err(|error: std::io::Error| format!("{}: {error}", self.0.display()))
    }
}
