//! Tells cargo that the migrations are part of the program: `sqlx::migrate!` embeds the folder, and without
//! this line a new file in it would not be compiled in.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
