//! A grant is made by `decide` alone.
use deputize_issuer::decide::Grant;

fn forge() -> Grant {
    Grant { terms: unimplemented!() }
}

fn main() {
    forge();
}
