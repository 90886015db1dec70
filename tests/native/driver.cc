// Runs the kernels of uniface_jax/native without XLA, on any processor: jaxlib does not run on all of
// them. Reads requests from standard input and answers on standard output; both sides of that are in
// tests/helpers/kernel_driver.py, which also writes kernels.inc, the tables of what there is.

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/c_api.h"

struct XLA_FFI_Error {
  std::string message;
};

namespace {

using Sizes = std::vector<int64_t>;
using Scratch = std::function<int64_t(const Sizes&)>;

template <typename... Args, size_t... Is>
Scratch Unpacked(int64_t (*function)(Args...), std::index_sequence<Is...>) {
  return [function](const Sizes& sizes) { return function(sizes.at(Is)...); };
}
template <typename... Args>
Scratch ScratchBy(int64_t (*function)(Args...)) {
  return Unpacked(function, std::index_sequence_for<Args...>{});
}

}  // namespace

#include "kernels.inc"  // the kernels; kHandlers and kScratches, by name

namespace {

// As many bytes as were asked for and none behind, so that a sanitizer sees what goes beyond; one
// element off the address that allocators give, since kernels may count on no more than that.
class Memory {
 public:
  Memory(int64_t count, int64_t element)
      : bytes_(count * element), before_(element), block_(new char[before_ + bytes_]) {
    std::memset(block_.get(), 0xff, before_ + bytes_);  // nan, and what is far off as an integer
  }
  void Read() { std::cin.read(data(), bytes_); }
  void Write(int64_t bytes) { std::cout.write(data(), bytes); }
  void Write() { Write(bytes_); }
  char* data() { return block_.get() + before_; }
  template <typename T>
  T* As() { return reinterpret_cast<T*>(data()); }

 private:
  int64_t bytes_, before_;
  std::unique_ptr<char[]> block_;
};

// Threads that take tasks in turn, as XLA's do.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void Schedule(std::function<void()> task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push(std::move(task));
    }
    changed_.notify_one();
  }

 private:
  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return over_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      std::function<void()> task = std::move(tasks_.front());
      tasks_.pop();
      lock.unlock();
      task();
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::queue<std::function<void()>> tasks_;
  bool over_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

struct XLA_FFI_ExecutionContext {
  Pool* pool;
  int64_t threads;
};

namespace {

XLA_FFI_Api Api() {
  XLA_FFI_Api api{};
  api.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  api.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR,
                     XLA_FFI_API_MINOR};
  api.XLA_FFI_Error_Create = [](XLA_FFI_Error_Create_Args* args) {
    return new XLA_FFI_Error{args->message};
  };
  api.XLA_FFI_Error_Destroy = [](XLA_FFI_Error_Destroy_Args* args) { delete args->error; };
  api.XLA_FFI_ThreadPool_NumThreads =
      [](XLA_FFI_ThreadPool_NumThreads_Args* args) -> XLA_FFI_Error* {
    *args->num_threads = args->ctx->threads;
    return nullptr;
  };
  api.XLA_FFI_ThreadPool_Schedule = [](XLA_FFI_ThreadPool_Schedule_Args* args) -> XLA_FFI_Error* {
    args->ctx->pool->Schedule([task = args->task, data = args->data] { task(data); });
    return nullptr;
  };
  return api;
}

// An array of a call, and where XLA says what it is.
struct Array {
  Memory memory;
  Sizes shape;
  XLA_FFI_Buffer buffer;
};

std::unique_ptr<Array> ReadShape(std::istream& words) {
  std::string type;
  int64_t rank, count = 1;
  words >> type >> rank;
  Sizes shape(rank);
  for (int64_t& size : shape) {
    words >> size;
    count *= size;
  }
  auto array = std::make_unique<Array>(Array{Memory(count, type == "pred" ? 1 : 4), shape, {}});
  const auto dtype = type == "pred"  ? XLA_FFI_DataType_PRED
                     : type == "s32" ? XLA_FFI_DataType_S32
                                     : XLA_FFI_DataType_F32;
  array->buffer = {XLA_FFI_Buffer_STRUCT_SIZE, nullptr, dtype, array->memory.data(), rank,
                   array->shape.data()};
  return array;
}

struct Attribute {
  std::string name;
  int32_t integer;
  float number;
  XLA_FFI_Scalar scalar;
  XLA_FFI_ByteSpan span;
};

// call NAME THREADS, then in any order: arg TYPE RANK SIZE..., ret TYPE RANK SIZE..., attr TYPE NAME
// VALUE, attributes by name; then the bytes of all arguments.
void Call(std::istream& words, Pool* pool) {
  std::string name, kind, type;
  XLA_FFI_ExecutionContext context{pool, 0};
  words >> name >> context.threads;
  std::vector<std::unique_ptr<Array>> of_args, of_rets;
  std::vector<std::unique_ptr<Attribute>> of_attrs;
  while (words >> kind) {
    if (kind == "arg") of_args.push_back(ReadShape(words));
    if (kind == "ret") of_rets.push_back(ReadShape(words));
    if (kind != "attr") continue;
    auto attribute = std::make_unique<Attribute>();
    words >> type >> attribute->name;
    if (type == "f32") {
      std::string text;
      words >> text;
      attribute->number = std::strtof(text.c_str(), nullptr);
      attribute->scalar = {XLA_FFI_DataType_F32, &attribute->number};
    } else {
      words >> attribute->integer;
      attribute->scalar = {XLA_FFI_DataType_S32, &attribute->integer};
    }
    attribute->span = {attribute->name.data(), attribute->name.size()};
    of_attrs.push_back(std::move(attribute));
  }
  std::vector<void*> args, rets, attrs;
  std::vector<XLA_FFI_ByteSpan*> names;
  for (auto& array : of_args) {
    array->memory.Read();
    args.push_back(&array->buffer);
  }
  for (auto& array : of_rets) rets.push_back(&array->buffer);
  for (auto& attribute : of_attrs) {
    attrs.push_back(&attribute->scalar);
    names.push_back(&attribute->span);
  }
  std::vector<XLA_FFI_ArgType> arg_types(args.size(), XLA_FFI_ArgType_BUFFER);
  std::vector<XLA_FFI_RetType> ret_types(rets.size(), XLA_FFI_RetType_BUFFER);
  std::vector<XLA_FFI_AttrType> attr_types(attrs.size(), XLA_FFI_AttrType_SCALAR);
  static const XLA_FFI_Api api = Api();
  XLA_FFI_CallFrame frame{};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api;
  frame.ctx = &context;
  frame.stage = XLA_FFI_ExecutionStage_EXECUTE;
  frame.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, static_cast<int64_t>(args.size()),
                arg_types.data(), args.data()};
  frame.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, static_cast<int64_t>(rets.size()),
                ret_types.data(), rets.data()};
  frame.attrs = {XLA_FFI_Attrs_STRUCT_SIZE, nullptr, static_cast<int64_t>(attrs.size()),
                 attr_types.data(), names.data(), attrs.data()};
  if (XLA_FFI_Error* error = kHandlers.at(name)(&frame)) {
    std::cout << "error " << error->message << '\n';
    delete error;
    return;
  }
  std::cout << "ok\n";
  for (auto& array : of_rets) array->memory.Write();
}

// nearest GROUPS QUERIES K CAPACITY BLOCKS BEGIN END, then the arrays of UnifaceNearest up to `best`.
void Nearest(std::istream& words) {
  int64_t groups, queries, k, capacity, blocks, begin, end;
  words >> groups >> queries >> k >> capacity >> blocks >> begin >> end;
  constexpr int64_t kRows = 64;
  Memory codes(blocks * groups * kRows * 4, 1), scales(blocks * kRows, 4);
  Memory errors(blocks * kRows, 4), of_queries(queries * groups * 4, 1), sums(queries, 4);
  Memory query_scales(queries, 4), by_error(queries, 4), beyond(queries, 4), best(queries * k, 4);
  for (Memory* memory : {&codes, &scales, &errors, &of_queries, &sums, &query_scales, &by_error,
                         &beyond, &best})
    memory->Read();
  Memory found_queries(capacity, 4), found_rows(capacity, 8), found_bounds(capacity, 4);
  UnifaceNearest n{codes.As<uint8_t>(), scales.As<float>(), errors.As<float>(), groups,
                   of_queries.As<int8_t>(), sums.As<int32_t>(), query_scales.As<float>(),
                   by_error.As<float>(), beyond.As<float>(), queries, k, best.As<float>(),
                   found_queries.As<int32_t>(), found_rows.As<int64_t>(),
                   found_bounds.As<float>(), capacity, 0};
  const int64_t next = UnifaceNearestOfCodes(&n, begin, end);
  std::cout << "ok " << next << ' ' << n.found << '\n';
  best.Write();
  found_queries.Write(n.found * 4);
  found_rows.Write(n.found * 8);
  found_bounds.Write(n.found * 4);
}

// exp COUNT, then so many floats, whole vectors.
void Exponentials(std::istream& words) {
  int64_t count;
  words >> count;
  Memory values(count, 4);
  values.Read();
  float* at = values.As<float>();
  for (int64_t i = 0; i < count; i += uniface::kWidth)
    uniface::Store(at + i, uniface::ExpOfNegative(uniface::Load(at + i)));
  std::cout << "ok\n";
  values.Write();
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  Pool pool(3);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string request;
    words >> request;
    if (request == "call") Call(words, &pool);
    if (request == "nearest") Nearest(words);
    if (request == "exp") Exponentials(words);
    if (request == "width") std::cout << "ok " << uniface::kWidth << '\n';
    if (request == "scratch") {
      std::string name;
      words >> name;
      Sizes sizes;
      for (int64_t size; words >> size;) sizes.push_back(size);
      std::cout << "ok " << kScratches.at(name)(sizes) << '\n';
    }
    std::cout.flush();
  }
}
