//! The door to AWS: STS, and the keys of the identity that AWS knows us by.

use deputize_issuer::{clock::Clock, desk::AwsDoor, mint::WebIdentity, role_session::RoleSessions};
use std::sync::Arc;

use super::{CannotStart, cannot};
use crate::{
    backends::{
        fetch::Reach,
        sts::{Sts, StsSettings, UserKeys},
        web_identity_keys::WebIdentityRing,
    },
    config::{
        aws::{self, Aws, WebIdentityIssuer},
        resolved::{Mode, Resolved},
    },
};

/// What stands behind the door.
pub struct AwsBackends {
    /// The keys of the identity.
    pub ring: Arc<WebIdentityRing>,
    /// The identity, which stays as long as the process does.
    pub identity: WebIdentityIssuer,
    sts: Arc<Sts>,
}

impl AwsBackends {
    /// Opens them, where AWS is configured.
    pub(super) fn open(
        resolved: &Resolved,
        mode: Mode,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Self>, CannotStart> {
        let Some(aws) = &resolved.aws else { return Ok(None) };
        let identity = aws.web_identity.clone();
        let ring = WebIdentityRing::open(&resolved.data_dir, identity.algorithm, clock.now_seconds());
        let sts = Sts::new(settings(&aws.sts, mode), Arc::clone(clock)).map_err(cannot)?;
        Ok(Some(Self { ring: Arc::new(ring.map_err(cannot)?), identity, sts: Arc::new(sts) }))
    }

    pub(super) fn door(&self) -> AwsDoor {
        AwsDoor {
            sts: Arc::clone(&self.sts) as _,
            web_identity: WebIdentity {
                keys: self.ring.source(),
                issuer: self.identity.issuer.clone(),
                audience: self.identity.audience.clone(),
            },
            sessions: RoleSessions::default(),
        }
    }

    /// Takes what the configuration says now: templates and accounts are among the rules and not in here.
    ///
    /// # Errors
    /// If the certificates cannot be read; then nothing has changed.
    pub(super) fn change(&self, aws: &Aws, mode: Mode) -> Result<(), CannotStart> {
        self.sts.change(settings(&aws.sts, mode)).map_err(cannot)?;
        self.ring.sign_with(aws.web_identity.algorithm);
        Ok(())
    }
}

/// Whether a running broker can take this configuration's AWS: there is a door or none, and AWS knows it by one name, as
/// long as the process runs.
pub(super) fn check(held: Option<&AwsBackends>, resolved: &Resolved) -> Result<(), CannotStart> {
    let name = |identity: &WebIdentityIssuer| (identity.issuer.clone(), identity.audience.clone());
    let held = held.map(|held| name(&held.identity));
    let now = resolved.aws.as_ref().map(|aws| name(&aws.web_identity));
    if held == now {
        Ok(())
    } else {
        Err(CannotStart(
            "aws: whether it is there, and issuer and audience of web_identity, change with a restart alone"
                .to_owned(),
        ))
    }
}

fn settings(sts: &aws::Sts, mode: Mode) -> StsSettings {
    StsSettings {
        endpoint: sts.endpoint.clone(),
        reach: Reach {
            allow_private_addresses: sts.allow_private_addresses,
            allow_http: mode == Mode::Development,
            ca_file: sts.ca_file.clone(),
        },
        calls_per_second: sts.calls_per_second,
        keys: sts.keys.as_ref().map(|keys| UserKeys {
            access_key_id: keys.access_key_id.clone(),
            secret_access_key_file: keys.secret_access_key_file.clone(),
            session_token_file: keys.session_token_file.clone(),
        }),
    }
}
