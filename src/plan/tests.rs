//! Tests of the pure core as a whole: objects of Kubernetes in, rows of the northbound database out.

mod changes;
mod examples;
mod histories;
mod interleavings;
mod migrations;
mod nics;
mod rules;
mod server;
mod trouble;
mod waking;
mod world;
