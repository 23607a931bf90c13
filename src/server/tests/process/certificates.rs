//! Who is who where TLS is spoken.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use std::path::Path;

/// Writes `authority.pem`, and, each with its key, `server.pem` and `client.pem`, which the authority
/// has signed, and `stranger.pem`, which it has not.
pub fn write(dir: &Path) {
    let mut authority = params("Test authority", &[]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = authority.self_signed(&key).expect("an authority");
    file(dir, "authority", &certificate.pem());
    let authority = Issuer::new(authority, key);

    let signed = [
        ("server", params("localhost", &["localhost", "127.0.0.1"])),
        ("client", params("client", &["client"])),
    ];
    for (name, params) in signed {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        file(dir, name, &(certificate.pem() + &key.serialize_pem()));
    }

    let key = KeyPair::generate().expect("a key");
    let stranger = params("Stranger", &["client"]).self_signed(&key);
    let stranger = stranger.expect("a certificate").pem();
    file(dir, "stranger", &(stranger + &key.serialize_pem()));
}

/// A certificate of this owner, for these hosts.
fn params(owner: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "DE");
    name.push(DnType::OrganizationName, "Triglot, tests");
    name.push(DnType::CommonName, owner);
    params.distinguished_name = name;
    params
}

fn file(dir: &Path, name: &str, pem: &str) {
    std::fs::write(dir.join(format!("{name}.pem")), pem).expect("writable");
}
