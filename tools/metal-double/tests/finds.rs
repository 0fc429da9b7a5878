//! What the stand-ins find: every mistake is planted, and what is right beside it passes.
use candle_core::{DType, Device, MetalDevice, Tensor};
use metal::macos::{MetalExecutor, open};
use metal::{Access, ExecError, Executor, launch};
use objc2::rc::autoreleasepool;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue, MTLComputeCommandEncoder,
    MTLCreateSystemDefaultDevice, MTLDevice, MTLDispatchType, MTLLibrary, MTLResourceOptions, MTLSize, double,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts and planted failures are the process's, so one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn device() -> MetalDevice {
    let Device::Metal(device) = open().unwrap() else { panic!("not Metal") };
    device
}

/// What a panic says.
fn broken<T>(work: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(work)).err().expect("a broken rule");
    *panic.downcast::<String>().expect("a message")
}

const COUNT: usize = 256;

/// Two launches of which the second reads what the first writes. `mark`: what the first is said to do with it.
fn chain(executor: &MetalExecutor, mark: Access) -> Vec<u8> {
    let ones: Vec<u8> = [1f32; COUNT].into_iter().flat_map(f32::to_le_bytes).collect();
    let x = executor.buffer(&ones).unwrap();
    let [middle, out] = [(); 2].map(|()| executor.create_activation(4 * COUNT).unwrap());
    let mut first = launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&x, &x, &middle]);
    first.bindings[2].access = mark;
    let second = launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&middle, &x, &out]);
    executor.run(&[first, second]).unwrap();
    let mut bytes = vec![0; 4 * COUNT];
    executor.download(&out, 0, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_missing_barrier() {
    let _alone = alone();
    let executor = MetalExecutor::new(&device());
    let out = chain(&executor, Access::Write);
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let got = f32::from_le_bytes(*out.first_chunk().unwrap());
    assert!((got - sigmoid(sigmoid(1.0))).abs() < 1e-6, "{got}");
    let message = broken(|| chain(&executor, Access::Read));
    assert!(message.contains("missing barrier: gate_mul reads what gate_mul writes"), "{message}");
    assert!(message.contains(double::SEED), "{message}");
}

#[test]
fn a_missing_fence() {
    let _alone = alone();
    let device = MTLCreateSystemDefaultDevice().unwrap();
    let copy_what_is_filled = |with_fence: bool| {
        autoreleasepool(|_| {
            let queue = device.newCommandQueue().unwrap();
            let untracked = MTLResourceOptions::HazardTrackingModeUntracked;
            let [from, to] = [(); 2].map(|()| device.newBufferWithLength_options(16, untracked).unwrap());
            let fence = device.newFence().unwrap();
            let range = objc2_foundation::NSRange::new(0, 16);
            let (first, second) = (queue.commandBuffer().unwrap(), queue.commandBuffer().unwrap());
            let encoder = first.blitCommandEncoder().unwrap();
            encoder.fillBuffer_range_value(&from, range, 7);
            encoder.updateFence(&fence);
            encoder.endEncoding();
            first.commit();
            let encoder = second.blitCommandEncoder().unwrap();
            if with_fence {
                encoder.waitForFence(&fence);
            }
            // SAFETY: the ranges lie in the buffers.
            unsafe { encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(&from, 0, &to, 0, 16) };
            encoder.endEncoding();
            second.commit();
            second.waitUntilCompleted();
            // SAFETY: the buffer has 16 bytes, and what writes them has completed.
            unsafe { to.contents().cast::<[u8; 16]>().read() }
        })
    };
    assert_eq!(copy_what_is_filled(true), [7; 16]);
    let message = broken(|| copy_what_is_filled(false));
    assert!(message.contains("missing fence: a copy reads what a fill writes"), "{message}");
}

#[test]
fn reading_without_a_wait() {
    let _alone = alone();
    let device = device();
    let zeros = autoreleasepool(|_| device.new_buffer_builder().with_zeros(16).build()).unwrap();
    // SAFETY: the buffer has 16 bytes.
    let read = || unsafe { zeros.contents().cast::<[u8; 16]>().read() };
    assert_eq!(read(), [0xff; 16]);
    autoreleasepool(|_| device.flush_and_wait_current()).unwrap();
    assert_eq!(read(), [0; 16]);
}

#[test]
fn reading_what_the_cpu_does_not_see() {
    let _alone = alone();
    let private = device().new_private_buffer(4, DType::F32, "").unwrap();
    let message = broken(|| private.contents());
    assert!(message.contains("private buffer of 16 bytes"), "{message}");
}

/// A wait of Candle's looks at the last command buffer alone.
#[test]
fn a_failure_that_a_wait_does_not_see() {
    let _alone = alone();
    let device = device();
    let executor = MetalExecutor::new(&device);
    let x = executor.buffer(&[0; 4 * COUNT]).unwrap();
    let out = executor.create_activation(4 * COUNT).unwrap();
    double::fail_commit(0);
    // More than Candle puts into one command buffer.
    (0..60).for_each(|_| executor.run(&[launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&x, &x, &out])]).unwrap());
    autoreleasepool(|_| {
        assert!(device.flush_and_wait_current().is_ok());
        let error = device.wait_until_completed().unwrap_err().to_string();
        assert!(error.contains("a failure that metal-double was told to make"), "{error}");
        device.wait_until_completed().unwrap();
    });
}

#[test]
fn memory_that_is_taken_away_while_launches_use_it() {
    let _alone = alone();
    let executor = MetalExecutor::new(&device());
    let x = executor.buffer(&[0; 4 * COUNT]).unwrap();
    let use_large = |wait: bool| {
        // This size gets a buffer of its own, not one of Candle's pool.
        let large = executor.create(1 << 20).unwrap();
        executor.run(&[launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&x, &x, &large])]).unwrap();
        if wait {
            executor.download(&large, 0, &mut [0; 4]).unwrap();
        }
    };
    let before = double::allocated();
    use_large(true);
    assert_eq!(double::allocated(), before);
    let message = broken(|| use_large(false));
    assert!(message.contains("leaves the residency set while 1 commands that use it"), "{message}");
}

#[test]
fn a_second_wait() {
    let _alone = alone();
    let executor = MetalExecutor::new(&device());
    let x = executor.buffer(&[0; 4 * COUNT]).unwrap();
    let out = executor.create_activation(4 * COUNT).unwrap();
    executor.run(&[launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&x, &x, &out])]).unwrap();
    let waits = || {
        let before = double::counts();
        executor.download(&out, 0, &mut [0; 4]).unwrap();
        let after = double::counts();
        (after.waits - before.waits, after.empty_commits - before.empty_commits)
    };
    assert_eq!(waits(), (1, 0));
    assert_eq!(waits(), (1, 1));
}

#[test]
fn work_without_a_pool() {
    let _alone = alone();
    let device = open().unwrap();
    let Device::Metal(metal) = &device else { panic!("not Metal") };
    let executor = MetalExecutor::new(metal);
    let x = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
    let x = autoreleasepool(|_| x.to_device(&device)).unwrap();
    let read = || assert_eq!(x.to_vec1::<f32>().unwrap(), [1.0; 4]);
    let unpooled = |work: &dyn Fn()| {
        let before = objc2::double::unpooled();
        work();
        objc2::double::unpooled() - before
    };
    assert_eq!(unpooled(&|| executor.scope(&mut || read())), 0);
    assert!(unpooled(&read) > 0);
}

#[test]
fn what_metal_has_no_room_for() {
    let _alone = alone();
    let executor = MetalExecutor::new(&device());
    let x = executor.buffer(&[0; 4 * COUNT]).unwrap();
    let out = executor.create_activation(4 * COUNT).unwrap();
    let gate = || launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&x, &x, &out]);
    let run = |launch| MetalExecutor::new(&device()).run(&[launch]).unwrap();
    let mut none = gate();
    none.grid[1] = 0;
    let mut long = gate();
    long.params.1 = vec![0; 4096];
    let mut beyond = gate();
    beyond.bindings[0].offset = 4 * COUNT;
    for (launch, words) in [
        (none, "gate_mul: a grid of [1, 0, 1] threadgroups"),
        (long, "gate_mul: setBytes of 4096 bytes"),
        (beyond, "gate_mul: buffer 0 begins at byte 1024 of 1024"),
    ] {
        let message = broken(|| run(launch));
        assert!(message.contains(words), "{message}");
    }
}

/// A dispatch of one threadgroup with a buffer at `index`, by Metal's own functions: the executor would refuse it.
fn dispatch(kernel: &str, threads: usize, index: usize) {
    autoreleasepool(|_| {
        let device = MTLCreateSystemDefaultDevice().unwrap();
        let library = device.newLibraryWithSource_options_error(&NSString::from_str(""), None).unwrap();
        let function = library.newFunctionWithName(&NSString::from_str(kernel)).unwrap();
        let pipeline = device.newComputePipelineStateWithFunction_error(&function).unwrap();
        let buffer = device.newBufferWithLength_options(16, MTLResourceOptions::StorageModeShared).unwrap();
        let commands = device.newCommandQueue().unwrap().commandBuffer().unwrap();
        let encoder = commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Serial).unwrap();
        encoder.setComputePipelineState(&pipeline);
        // SAFETY: the kernel never runs.
        unsafe { encoder.setBuffer_offset_atIndex(Some(&buffer), 0, index) };
        let size = |width| MTLSize { width, height: 1, depth: 1 };
        encoder.dispatchThreadgroups_threadsPerThreadgroup(size(1), size(threads));
    });
}

#[test]
fn what_the_executor_checks_is_checked_by_the_stand_ins_too() {
    let _alone = alone();
    for (kernel, threads, index, words) in [
        ("gate_mul", 2048, 0, "gate_mul: 2048 threads a threadgroup"),
        ("gate_mul", 32, 31, "gate_mul: buffer 31 is set"),
        ("gate_mul", 32, 0, "gate_mul: buffer 1 is not bound"),
        ("gate_mull", 32, 0, "gate_mull: nothing stands in for this kernel"),
    ] {
        let message = broken(|| dispatch(kernel, threads, index));
        assert!(message.contains(words), "{message}");
    }
    let device = MTLCreateSystemDefaultDevice().unwrap();
    let shared = MTLResourceOptions::StorageModeShared;
    let message = broken(|| device.newBufferWithLength_options(5 << 30, shared));
    assert!(message.contains("a new buffer: has 5368709120 bytes"), "{message}");
    let executor = MetalExecutor::new(&self::device());
    let error = executor.create(5 << 30).err().unwrap().to_string();
    assert!(error.contains("a buffer of this GPU has at most 4294967296"), "{error}");
}

/// The error of a command buffer that nobody waited for alone ends the use of the device.
#[test]
fn a_failure_ends_the_use_of_the_device() {
    let _alone = alone();
    let executor = MetalExecutor::new(&device());
    let x = executor.buffer(&[0; 4 * COUNT]).unwrap();
    let out = executor.create_activation(4 * COUNT).unwrap();
    let gate = || launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&x, &x, &out]);
    executor.run(&[gate()]).unwrap();
    assert_eq!(executor.failure(), None);
    double::fail_commit(0);
    (0..60).for_each(|_| executor.run(&[gate()]).unwrap());
    let lost = |error: ExecError| matches!(error, ExecError::Lost(_));
    assert!(lost(executor.download(&out, 0, &mut [0; 4]).unwrap_err()));
    assert!(lost(executor.run(&[gate()]).unwrap_err()) && executor.failure().is_some_and(lost));
}

/// A kernel that reads beyond a buffer is the emulator's to find.
#[test]
fn a_kernel_that_reads_beyond_its_buffer() {
    let _alone = alone();
    let executor = MetalExecutor::new(&device());
    let x = executor.buffer(&[0; 2 * COUNT]).unwrap();
    let out = executor.create_activation(4 * COUNT).unwrap();
    executor.run(&[launch::gate_mul(COUNT, launch::Gate::Sigmoid(1), [&x, &x, &out])]).unwrap();
    let message = broken(|| executor.download(&out, 0, &mut [0; 4]));
    assert!(message.contains("gate_mul"), "{message}");
}
