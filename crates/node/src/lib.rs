//! Configuration, wiring and the perihelion binary.
