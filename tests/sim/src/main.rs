//! The command line of the simulator: see `cargo xtask sim --help`.

use carbontube_sim::parameters::Parameters;
use carbontube_sim::world;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let from: u64 = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let many: u64 = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let print = arguments.next().is_some();
    for seed in from..from + many {
        let parameters = Parameters::draw(seed);
        if print {
            println!("{parameters}");
        }
        let outcome = world::run(parameters, print);
        if outcome.violation.is_some() || print {
            println!("{outcome:#?}");
        }
    }
}
