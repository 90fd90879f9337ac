//! The command line of the simulator: see `cargo xtask sim --help`.

fn main() {
    let parameters = carbontube_sim::parameters::Parameters::draw(1);
    println!("{parameters}");
}
