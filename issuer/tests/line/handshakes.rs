//! Two processes that speak mutual TLS with their SVIDs, while authorities are prepared, activated, tainted and revoked:
//! no handshake fails, and what was revoked opens none.

use deputize_issuer::{authority, clock::Clock as _, svid::X509Svid};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
    time_provider::TimeProvider,
};
use std::{sync::Arc, time::Duration};

use crate::spiffe::{DAY, SpiffeWorld, process};

/// A process: its SVID, and the bundle that it knows.
struct Peer {
    svid: X509Svid,
    bundle: Vec<Vec<u8>>,
    asked_for_bundle: u64,
}

#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

#[tokio::test]
async fn no_handshake_fails_while_authorities_follow_each_other_by_time() {
    let mut world = SpiffeWorld::new();
    let (mut one, mut other) = (Peer::new(&world).await, Peer::new(&world).await);
    let mut authorities = vec![world.active(authority::Kind::X509)];
    for _ in 0..2 * DAY / STEP {
        world.world.clock.advance(Duration::from_secs(STEP));
        world.turn();
        let now = world.world.clock.now_seconds();
        // One is pushed to; the other asks for the bundle now and then, and not as often as the refresh hint says.
        one.follow(&world, 0).await;
        other.follow(&world, 600).await;
        handshake(&one, &other, now).unwrap();
        handshake(&other, &one, now).unwrap();
        if authorities.last() != Some(&world.active(authority::Kind::X509)) {
            authorities.push(world.active(authority::Kind::X509));
        }
    }
    assert!(authorities.len() >= 4, "{authorities:?}");
}

#[tokio::test]
async fn no_handshake_fails_while_an_authority_is_replaced_by_command_and_none_succeeds_with_what_was_revoked()
 {
    let mut world = SpiffeWorld::new();
    let first = world.active(authority::Kind::X509);
    let mut peers = [Peer::new(&world).await, Peer::new(&world).await];
    let old = Peer::new(&world).await;
    let now = world.world.clock.now_seconds();
    for step in 0..4 {
        match step {
            0 => world.prepare(authority::Kind::X509),
            1 => world.activate(authority::Kind::X509),
            2 => world.taint(&first),
            _ => world.revoke(&first),
        }
        // A push reaches one before the other.
        for pushed in 0..2 {
            peers[pushed].follow(&world, 0).await;
            handshake(&peers[0], &peers[1], now).unwrap();
            handshake(&peers[1], &peers[0], now).unwrap();
        }
    }
    assert!(handshake(&old, &peers[0], now).is_err(), "its authority is in no bundle any more");
    assert!(handshake(&peers[0], &old, now).is_err());
    let expired = peers[0].svid.not_after_seconds + 1;
    assert!(handshake(&peers[0], &peers[1], expired).is_err());
}

impl Peer {
    async fn new(world: &SpiffeWorld) -> Self {
        let bundle = world.door.authorities.ring().bundle.x509_authorities.clone();
        let svid = world.x509(&process(), "web").await.unwrap();
        Self { svid, bundle, asked_for_bundle: world.world.clock.now_seconds() }
    }

    /// Renews at half of the SVID's life, or where its authority is tainted.
    async fn follow(&mut self, world: &SpiffeWorld, every_seconds: u64) {
        let (now, ring) = (world.world.clock.now_seconds(), world.door.authorities.ring().clone());
        if now >= self.asked_for_bundle + every_seconds {
            (self.bundle, self.asked_for_bundle) = (ring.bundle.x509_authorities.clone(), now);
        }
        let half = self.svid.not_before_seconds.midpoint(self.svid.not_after_seconds);
        if now >= half || self.svid.authorities.iter().any(|authority| ring.tainted.contains(authority)) {
            self.svid = world.x509(&process(), "web").await.unwrap();
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for der in &self.bundle {
            roots.add(CertificateDer::from(der.clone())).unwrap();
        }
        Arc::new(roots)
    }

    fn identity(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = self.svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = self.svid.private_key.as_ref().unwrap().expose().clone();
        (chain, PrivateKeyDer::Pkcs8(key.into()))
    }
}

/// Both ends in memory, at this moment.
fn handshake(client: &Peer, server: &Peer, now: u64) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let time = || Arc::new(At(now));
    let (chain, key) = server.identity();
    let of_clients =
        WebPkiClientVerifier::builder_with_provider(server.roots(), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_details(Arc::clone(&provider), time())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(of_clients)
        .with_single_cert(chain, key)?;
    let mut server = ServerConnection::new(Arc::new(config))?;

    let (chain, key) = client.identity();
    let of_servers =
        WebPkiServerVerifier::builder_with_provider(client.roots(), Arc::clone(&provider)).build().unwrap();
    let config = ClientConfig::builder_with_details(provider, time())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(of_servers)
        .with_client_auth_cert(chain, key)?;
    let name = ServerName::try_from("web.example.org").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name)?;

    for _ in 0..10 {
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    panic!("the handshake goes on for ever");
}

/// Seconds between looks: shorter than anything that has to be seen.
const STEP: u64 = 450;
