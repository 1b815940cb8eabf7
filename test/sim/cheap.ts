/**
 * Makes what costs simulated runs most cheap, as modules are loaded: the digests of the data path (cheapCrypto.ts) and the codec of segments
 * (codec.ts). The product knows nothing of it.
 */
import { registerHooks } from 'node:module';
import path from 'node:path';

const root = new URL(`file://${path.resolve(import.meta.dirname, '../..')}/`);
const DATA_PATH = new URL('dataplane/', root).href;
const REAL_CODEC = new URL('dataplane/journal/segmentCodec.ts', root).href;
const CODEC = new URL('codec.ts', import.meta.url).href;
const CRYPTO = new URL('cheapCrypto.ts', import.meta.url).href;

/** Before anything imports the product. */
export function useCheapCodecs(): void {
  registerHooks({
    resolve: (specifier, context, next) => {
      const { parentURL = '' } = context;
      if (specifier === 'node:crypto' && parentURL.startsWith(DATA_PATH))
        return { url: CRYPTO, shortCircuit: true };
      const found = next(specifier, context);
      return found.url === REAL_CODEC && parentURL !== CODEC ? { ...found, url: CODEC } : found;
    },
  });
}
