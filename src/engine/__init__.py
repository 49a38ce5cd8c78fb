"""Engines that complete prompts, and the proof that they hold the weights they should.

May import `src.config`, `src.data` and `src.run`. `vllm_engine` alone imports vllm.

Read first: `generator.Generator`, then `swap_verifier.SwapVerifier`.
"""
