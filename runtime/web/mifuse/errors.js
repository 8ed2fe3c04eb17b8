/** Errors of one line: what, where, and what to do. */

export class MifuseError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** A bundle that is missing, changed, too new, or cannot be run. */
export class BundleError extends MifuseError {}

/** Audio, a rate or a setting of a stream that cannot be used. */
export class AudioError extends MifuseError {}
