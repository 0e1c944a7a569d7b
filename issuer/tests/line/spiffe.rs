//! The world with the door to SVIDs: a trust domain whose authorities come and go by hand, two entries, and processes.

use deputize_call::sign::SigningKey;
use deputize_issuer::{
    authority::{
        Authorities, Authority, AuthorityError, AuthorityRing, Kind, Made, Member, NotNow, Public, Register,
        Upstream,
    },
    bundle::ForeignBundles,
    clock::Clock as _,
    entry::{Bounds, Draft, Entries, LiveEntries, Origin},
    error::IssueError,
    keys::KeySource,
    svid::{JwtAsk, JwtSvid, SpiffeDoor, SvidKey, SvidSettings, X509Ask, X509Svid, jwt_svid, x509_svid},
    workload::Workload,
};
use spiffe::{SpiffeId, TrustDomain};
use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::world::{ISSUER, NOW, Setup, World};

pub(crate) const NODE: &str = "spiffe://example.org/deputize/node/local";
pub(crate) const WEB: &str = "spiffe://example.org/web";
pub(crate) const DAY: u64 = 86_400;

pub(crate) struct SpiffeWorld {
    pub(crate) world: World,
    pub(crate) door: Arc<SpiffeDoor>,
    pub(crate) register: Register,
    private: HashMap<String, Vec<u8>>,
    upstream: Option<Upstream>,
}

impl SpiffeWorld {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let (mut register, mut private) = (Register::empty(domain()), HashMap::new());
        register.follow_time(NOW, |kind| make(&mut private, kind, NOW)).unwrap();
        let ring = ring(&register, &private);
        let door = Arc::new(SpiffeDoor {
            trust_domain: domain(),
            issuer: format!("{ISSUER}/spiffe"),
            jwt_keys: Arc::new(KeySource::new(
                SigningKey::from_pkcs8(&private[ring.jwt.kid()], None).unwrap(),
                Vec::new(),
            )),
            authorities: Arc::new(Authorities::new(ring)),
            entries: Arc::new(LiveEntries::new(entries(&[web(), batch()]), NOW)),
            foreign: Arc::new(ForeignBundles::default()),
            settings: SvidSettings { x509_svid_ttl_seconds: 3600, jwt_svid_ttl_seconds: 300 },
        });
        let spiffe = Arc::clone(&door);
        let world = World::with(|setup| {
            setup.spiffe = Some(spiffe);
            change(setup);
        });
        Self { world, door, register, private, upstream: None }
    }

    pub(crate) async fn x509(&self, workload: &Workload, entry: &str) -> Result<X509Svid, IssueError> {
        x509_svid(&self.world.desk, &X509Ask { workload, entry, key: SvidKey::Mint }).await
    }

    pub(crate) async fn x509_for(&self, csr: &[u8]) -> Result<X509Svid, IssueError> {
        let workload = &process();
        x509_svid(&self.world.desk, &X509Ask { workload, entry: "web", key: SvidKey::Csr(csr) }).await
    }

    pub(crate) async fn jwt(&self, workload: &Workload, audiences: &[&str]) -> Result<JwtSvid, IssueError> {
        let audiences: Vec<String> = audiences.iter().map(|&audience| audience.to_owned()).collect();
        jwt_svid(&self.world.desk, &JwtAsk { workload, entry: "web", audiences: &audiences }).await
    }

    /// What is due at this moment is done.
    pub(crate) fn turn(&mut self) {
        let now = self.world.clock.now_seconds();
        let private = &mut self.private;
        self.register.follow_time(now, |kind| make(private, kind, now)).unwrap();
        self.take();
    }

    /// What is made from now on has a root above it that is there for long.
    pub(crate) fn put_under_a_root(&mut self) {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "root");
        let key = rcgen::KeyPair::generate().unwrap();
        let root = parameters.self_signed(&key).unwrap().der().to_vec();
        self.upstream = Some(Upstream::new(vec![root], &key.serialize_der()).unwrap());
        self.prepare(Kind::X509);
        self.activate(Kind::X509);
    }

    pub(crate) fn prepare(&mut self, kind: Kind) {
        let (now, private) = (self.world.clock.now_seconds(), &mut self.private);
        let upstream = self.upstream.as_ref();
        let make = || make_under(upstream, private, kind, now).map_err(|_| NotNow::Unknown);
        self.register.prepare(kind, (now, None), make).unwrap();
        self.take();
    }

    pub(crate) fn activate(&mut self, kind: Kind) {
        self.register.activate(kind, self.world.clock.now_seconds(), true).unwrap();
        self.take();
    }

    pub(crate) fn taint(&mut self, id: &str) {
        self.register.taint(id, self.world.clock.now_seconds()).unwrap();
        self.take();
    }

    pub(crate) fn revoke(&mut self, id: &str) {
        self.register.revoke(id, self.world.clock.now_seconds()).unwrap();
        self.take();
    }

    pub(crate) fn active(&self, kind: Kind) -> String {
        self.register.active(kind).unwrap().id.clone()
    }

    /// What somebody makes who has the key of the active X.509 authority: a leaf for a key of his own, of this ID and number.
    pub(crate) fn forged(&self, id: &SpiffeId, serial: &str) -> Vec<Vec<u8>> {
        let active = self.register.active(Kind::X509).unwrap();
        let Public::X509(certificate) = &active.public else { panic!("an X.509 authority") };
        let key = rcgen::KeyPair::try_from(self.private[&active.id].as_slice()).unwrap();
        let signer = rcgen::Issuer::from_ca_cert_der(&certificate.anchor().into(), key).unwrap();
        let mut leaf = rcgen::CertificateParams::default();
        let byte = |at: usize| u8::from_str_radix(&serial[at..at + 2], 16).unwrap();
        let number: Vec<u8> = (0..serial.len()).step_by(2).map(byte).collect();
        leaf.serial_number = Some(rcgen::SerialNumber::from_slice(&number));
        leaf.subject_alt_names = vec![rcgen::SanType::URI(id.to_string().try_into().unwrap())];
        leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = self.world.clock.now_seconds();
        leaf.not_before = epoch + Duration::from_secs(now);
        leaf.not_after = epoch + Duration::from_secs(now + DAY);
        vec![leaf.signed_by(&rcgen::KeyPair::generate().unwrap(), &signer).unwrap().der().to_vec()]
    }

    fn take(&self) {
        if self.register.sequence() != self.door.authorities.ring().bundle.sequence {
            self.door.authorities.turn_to(ring(&self.register, &self.private));
        }
    }
}

fn ring(register: &Register, private: &HashMap<String, Vec<u8>>) -> AuthorityRing {
    let active = register.active(Kind::X509).unwrap();
    let Public::X509(certificate) = &active.public else { panic!("an X.509 authority") };
    let authority = Authority::restore(certificate.clone(), &private[&active.id]).unwrap();
    let jwt = SigningKey::from_pkcs8(&private[&register.active(Kind::Jwt).unwrap().id], None).unwrap();
    register.ring(Arc::new(authority), Arc::new(jwt)).unwrap()
}

fn make(private: &mut HashMap<String, Vec<u8>>, kind: Kind, now: u64) -> Result<Member, AuthorityError> {
    make_under(None, private, kind, now)
}

fn make_under(
    upstream: Option<&Upstream>,
    private: &mut HashMap<String, Vec<u8>>,
    kind: Kind,
    now: u64,
) -> Result<Member, AuthorityError> {
    let made = match kind {
        Kind::X509 => Made::x509(&domain(), upstream, now, DAY)?,
        Kind::Jwt => Made::jwt(now, DAY)?,
    };
    private.insert(made.member.id.clone(), made.pkcs8.expose().clone());
    Ok(made.member)
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

pub(crate) fn entries(drafts: &[Draft]) -> Entries {
    let bounds = Bounds { trust_domain: domain(), own_node: SpiffeId::new(NODE).unwrap() };
    Entries::build(bounds, drafts.iter().map(|draft| (draft.clone(), Origin::Admin))).unwrap()
}

pub(crate) fn web() -> Draft {
    Draft {
        id: "web".to_owned(),
        spiffe_id: WEB.to_owned(),
        selectors: vec!["unix:uid:1000".to_owned()],
        dns_names: vec!["web.example.org".to_owned()],
        hint: "internal".to_owned(),
        ..Draft::default()
    }
}

fn batch() -> Draft {
    Draft {
        id: "batch".to_owned(),
        spiffe_id: "spiffe://example.org/batch".to_owned(),
        selectors: vec!["unix:uid:1001".to_owned(), "unix:gid:1001".to_owned()],
        ..Draft::default()
    }
}

pub(crate) fn process() -> Workload {
    process_on(NODE, &["unix:uid:1000", "unix:gid:1000"])
}

pub(crate) fn process_on(node: &str, selectors: &[&str]) -> Workload {
    let selectors = selectors.iter().map(|selector| selector.parse().unwrap()).collect();
    Workload::attested(SpiffeId::new(node).unwrap(), selectors)
}
